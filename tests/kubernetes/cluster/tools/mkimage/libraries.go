package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// libraryDirs are the places of shared libraries in Debian. Its dynamic linker searches them without a cache, so that a
// library works in the image at the path that it has here.
var libraryDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib64", "/lib", "/usr/lib"}

// librariesOf returns the dynamic linker and the libraries that a program needs, and those that they need. It is empty for
// a static program, and for a file that is no program.
func librariesOf(program string) ([]string, error) {
	found := map[string]bool{}
	open := []string{program}
	for len(open) > 0 {
		file := open[0]
		open = open[1:]
		needed, err := needs(file)
		if err != nil {
			return nil, fmt.Errorf("cannot read the libraries of %s: %w", file, err)
		}
		for _, name := range needed {
			library, err := locate(name)
			if err != nil {
				return nil, fmt.Errorf("%s needs %w", file, err)
			}
			if !found[library] {
				found[library] = true
				open = append(open, library)
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// needs returns what a file itself names: its dynamic linker by path, libraries by name.
func needs(file string) ([]string, error) {
	opened, err := elf.Open(file)
	var format *elf.FormatError
	if errors.As(err, &format) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	needed, err := opened.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	for _, segment := range opened.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, segment.Filesz)
		if _, err := segment.ReadAt(name, 0); err != nil {
			return nil, err
		}
		needed = append(needed, strings.TrimRight(string(name), "\x00"))
	}
	return needed, nil
}

func locate(name string) (string, error) {
	if filepath.IsAbs(name) {
		_, err := os.Stat(name)
		return name, err
	}
	for _, dir := range libraryDirs {
		library := filepath.Join(dir, name)
		if _, err := os.Stat(library); err == nil {
			return library, nil
		}
	}
	return "", fmt.Errorf("library %s, which is in none of %s", name, strings.Join(libraryDirs, ", "))
}
