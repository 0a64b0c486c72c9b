//! Nothing of its own: the tests are in `kernel/` and `netns/`.
