package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
)

// Documents of the archive, as the format of `docker save` has them.
type (
	manifest struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	config struct {
		Architecture string    `json:"architecture"`
		OS           string    `json:"os"`
		Config       execution `json:"config"`
		RootFS       rootfs    `json:"rootfs"`
	}
	execution struct {
		Entrypoint []string
		Env        []string
		User       string
		WorkingDir string
	}
	rootfs struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
)

// layerName is the only layer's file in the archive.
const layerName = "layer.tar"

func (i *image) archive(out io.Writer, nodes []node) error {
	layer, err := os.CreateTemp("", "mkimage-layer-*")
	if err != nil {
		return err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	digest := sha256.New()
	if err := writeLayer(io.MultiWriter(layer, digest), nodes); err != nil {
		return err
	}
	configText, err := json.Marshal(config{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Config: execution{
			Entrypoint: []string{i.entrypoint},
			Env:        append([]string{"PATH=/usr/local/bin:/usr/bin:/bin"}, i.env...),
			User:       i.user,
			WorkingDir: "/",
		},
		RootFS: rootfs{Type: "layers", DiffIDs: []string{fmt.Sprintf("sha256:%x", digest.Sum(nil))}},
	})
	if err != nil {
		return err
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(configText))
	manifestText, err := json.Marshal([]manifest{{Config: configName, RepoTags: []string{i.name}, Layers: []string{layerName}}})
	if err != nil {
		return err
	}
	return writeArchive(out, layer, map[string][]byte{configName: configText, "manifest.json": manifestText})
}

func writeLayer(out io.Writer, nodes []node) error {
	archive := tar.NewWriter(out)
	for _, n := range nodes {
		if err := writeNode(archive, n); err != nil {
			return err
		}
	}
	return archive.Close()
}

// writeNode leaves times and owners at zero: they would make two images of the same files differ.
func writeNode(archive *tar.Writer, n node) error {
	header := tar.Header{Name: n.path, Mode: n.mode, Linkname: n.target}
	switch {
	case n.target != "":
		header.Typeflag = tar.TypeSymlink
	case n.source == "":
		header.Typeflag = tar.TypeDir
		header.Name += "/"
	default:
		return writeFile(archive, header, n.source)
	}
	return archive.WriteHeader(&header)
}

func writeFile(archive *tar.Writer, header tar.Header, source string) error {
	file, err := os.Open(source)
	if err != nil {
		return err
	}
	defer file.Close()
	return copyFile(archive, header, file)
}

func writeArchive(out io.Writer, layer *os.File, documents map[string][]byte) error {
	archive := tar.NewWriter(out)
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := copyFile(archive, tar.Header{Name: layerName, Mode: 0o644}, layer); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(documents)) {
		text := documents[name]
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			return err
		}
		if _, err := archive.Write(text); err != nil {
			return err
		}
	}
	return archive.Close()
}

func copyFile(archive *tar.Writer, header tar.Header, file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header.Typeflag = tar.TypeReg
	header.Size = info.Size()
	if err := archive.WriteHeader(&header); err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return err
}
