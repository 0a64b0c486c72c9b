package main

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// node is a file, link or directory of the image.
type node struct {
	path   string // without the leading slash
	source string // file of this machine; empty for links and directories
	target string // target of a link
	mode   int64
}

// tree has the entries' nodes and their parents, each path once, parents first.
func (i *image) tree() ([]node, error) {
	nodes := map[string]node{}
	add := func(n node) {
		nodes[n.path] = n
		for dir := path.Dir(n.path); dir != "."; dir = path.Dir(dir) {
			if _, found := nodes[dir]; !found {
				nodes[dir] = node{path: dir, mode: 0o755}
			}
		}
	}
	// Programs expect a place for temporary files in every image.
	add(node{path: "tmp", mode: 0o1777})
	for _, entry := range i.entries {
		n, err := parse(entry)
		if err != nil {
			return nil, err
		}
		add(n)
		if n.source == "" {
			continue
		}
		if i.entrypoint == "" {
			i.entrypoint = "/" + n.path
		}
		if !i.libraries {
			continue
		}
		libraries, err := librariesOf(n.source)
		if err != nil {
			return nil, err
		}
		for _, library := range libraries {
			add(node{path: strings.TrimPrefix(library, "/"), source: library, mode: 0o755})
		}
	}
	if i.entrypoint == "" {
		return nil, fmt.Errorf("no file among the entries, so there is nothing to run: give --entrypoint")
	}
	sorted := make([]node, 0, len(nodes))
	for _, n := range nodes {
		sorted = append(sorted, n)
	}
	slices.SortFunc(sorted, func(a, b node) int { return strings.Compare(a.path, b.path) })
	return sorted, nil
}

func parse(entry string) (node, error) {
	if link, target, found := strings.Cut(entry, "->"); found {
		name, err := inside(link)
		return node{path: name, target: target, mode: 0o777}, err
	}
	if source, place, found := strings.Cut(entry, "="); found {
		name, err := inside(place)
		if err != nil {
			return node{}, err
		}
		info, err := os.Stat(source)
		if err != nil {
			return node{}, err
		}
		if !info.Mode().IsRegular() {
			return node{}, fmt.Errorf("%s is not a regular file", source)
		}
		// Modes on the machine depend on umask and checkout; the image's do not.
		mode := int64(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		return node{path: name, source: source, mode: mode}, nil
	}
	if strings.HasSuffix(entry, "/") {
		name, err := inside(entry)
		return node{path: name, mode: 0o755}, err
	}
	return node{}, fmt.Errorf("entry %q is none of FILE=PATH, PATH->TARGET and PATH/", entry)
}

// inside returns the path below the image's root.
func inside(name string) (string, error) {
	clean := path.Clean(name)
	if !path.IsAbs(name) || clean == "/" {
		return "", fmt.Errorf("path %q in the image must begin with a slash", name)
	}
	return strings.TrimPrefix(clean, "/"), nil
}
