package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestTheSameFilesGiveTheSameBytesWhateverTheirTimes(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	first := imageOf(t, program+"=/bin/program", "/bin/alias->program", "/var/lib/")
	if err := os.Chtimes(program, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}

	second := imageOf(t, program+"=/bin/program", "/bin/alias->program", "/var/lib/")

	if !bytes.Equal(first, second) {
		t.Error("two images of the same files differ")
	}
}

func TestParentsComeFirstAndEachOnce(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}

	got := layerNames(t, imageOf(t, program+"=/usr/bin/a", program+"=/usr/bin/b", "/usr/bin/c->a"))

	want := []string{"tmp/", "usr/", "usr/bin/", "usr/bin/a", "usr/bin/b", "usr/bin/c"}
	if !slices.Equal(got, want) {
		t.Errorf("layer has %v, want %v", got, want)
	}
}

func TestADynamicProgramBringsItsLinkerAndLibraries(t *testing.T) {
	libraries, err := librariesOf("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}

	isLinker := func(file string) bool { return filepath.Base(file)[:3] == "ld-" }
	isLibC := func(file string) bool { return filepath.Base(file) == "libc.so.6" }
	if !slices.ContainsFunc(libraries, isLinker) || !slices.ContainsFunc(libraries, isLibC) {
		t.Errorf("libraries of /bin/sh: %v, want a dynamic linker and libc.so.6", libraries)
	}
}

func TestEntriesThatCannotBeInAnImageAreRefused(t *testing.T) {
	for _, entry := range []string{"nothing", "/etc/passwd=relative", "/absent=/bin/x", "->target", "/tmp=/bin/directory", "/=/"} {
		if n, err := parse(entry); err == nil {
			t.Errorf("entry %q is accepted as %+v", entry, n)
		}
	}
}

func imageOf(t *testing.T, entries ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image.tar")
	made := image{name: "localhost/test:1", user: "0", entries: entries}
	if err := made.write(out); err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

func layerNames(t *testing.T, archive []byte) []string {
	t.Helper()
	outer := tar.NewReader(bytes.NewReader(archive))
	if header, err := outer.Next(); err != nil || header.Name != layerName {
		t.Fatalf("first file of the archive: %v, %v", header, err)
	}
	var names []string
	inner := tar.NewReader(outer)
	for {
		header, err := inner.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
}
