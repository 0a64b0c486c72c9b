//go:build tools

// Package tools names runc. It is a module of its own: runc 1.4 needs a version of github.com/opencontainers/cgroups
// that the kubelet of Kubernetes 1.34 does not compile with.
package tools

import _ "github.com/opencontainers/runc"
