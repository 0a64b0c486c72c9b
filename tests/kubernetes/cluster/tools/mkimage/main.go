// Command mkimage makes a container image from files, as an archive that `ctr images import` and `docker load` read. It
// needs no daemon, no registry and no base image; the same files give the same bytes.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const usage = `usage: mkimage --name NAME:TAG --out FILE [OPTIONS] ENTRY...

ENTRY is one of
  FILE=PATH      the file, executable if it is so here
  PATH->TARGET   a symbolic link
  PATH/          an empty directory
PATH begins with a slash.

`

// image is all that the command line says.
type image struct {
	name       string
	entrypoint string
	user       string
	env        list
	libraries  bool
	entries    []string
}

// list collects the values of an option that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("mkimage: ")
	var made image
	out := flag.String("out", "", "archive to write")
	flag.StringVar(&made.name, "name", "", "name and tag of the image, such as localhost/app:1")
	flag.StringVar(&made.entrypoint, "entrypoint", "", "program that containers run; the path of the first file if not given")
	flag.StringVar(&made.user, "user", "0", "user id that containers run as")
	flag.BoolVar(&made.libraries, "libraries", false, "add the shared libraries that the files need")
	flag.Var(&made.env, "env", "NAME=VALUE in the environment of containers; may be repeated")
	flag.Usage = func() {
		fmt.Fprint(os.Stderr, usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	made.entries = flag.Args()
	if err := made.check(*out); err != nil {
		log.Print(err)
		flag.Usage()
		os.Exit(2)
	}
	if err := made.write(*out); err != nil {
		log.Fatalf("cannot make image %s: %v", made.name, err)
	}
}

func (i *image) check(out string) error {
	if out == "" || len(i.entries) == 0 {
		return fmt.Errorf("--out and at least one entry are needed")
	}
	repository, tag, found := strings.Cut(i.name, ":")
	if !found || repository == "" || tag == "" {
		return fmt.Errorf("--name %q is not NAME:TAG", i.name)
	}
	if _, err := strconv.ParseUint(i.user, 10, 32); err != nil {
		return fmt.Errorf("--user %q is not a number", i.user)
	}
	return nil
}

// write makes the archive beside its place and moves it there: its reader never sees half of it.
func (i *image) write(out string) error {
	tree, err := i.tree()
	if err != nil {
		return err
	}
	draft, err := os.CreateTemp(filepath.Dir(out), ".mkimage-*")
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	defer draft.Close()
	if err := i.archive(draft, tree); err != nil {
		return err
	}
	if err := draft.Chmod(0o644); err != nil {
		return err
	}
	return os.Rename(draft.Name(), out)
}
