package doctor

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"quartet/console"
)

// The files by which folders are told apart.
const (
	configName        = "config.json"
	singleName        = "model.safetensors"
	indexName         = "model.safetensors.index.json"
	adapterConfigName = "adapter_config.json"
	adapterModelName  = "adapter_model.safetensors"
	workspaceName     = "config.toml"
)

// folder examines a folder as what its files make it.
func (x *exam) folder(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		x.fail("", nil, "the folder cannot be read: %s; check its permissions", cause(err))
		return
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	has := func(test func(string) bool) bool { return slices.ContainsFunc(names, test) }
	is := func(name string) func(string) bool { return func(n string) bool { return n == name } }
	switch {
	case has(is(workspaceName)) || has(is(".quartet")):
		x.workspace(dir)
	case has(is("snapshots")) && has(is("blobs")):
		x.hubCache(dir)
	case has(is(adapterConfigName)) || has(is(adapterModelName)) || has(is("adapter_model.bin")):
		x.adapter(dir, names)
	case has(is(configName)) || has(isWeights) || has(isPickle) || has(is(indexName)):
		x.model(dir, names)
	case has(isRows):
		x.datasetFolder(dir, names)
	case len(names) == 0:
		x.fail("", nil, "the folder is empty; download something into it")
	default:
		x.fail("", nil, "holds no model, adapter, dataset or workspace (%s); name the folder that holds config.json, adapter_config.json, .jsonl files or config.toml", some(names))
	}
}

// file examines a single file by its name and its first bytes.
func (x *exam) file(path string, info fs.FileInfo) {
	name, head := filepath.Base(path), first(path)
	size, pointer := pointerSize(head)
	switch {
	case name == workspaceName:
		x.workspace(filepath.Dir(path))
	case pointer:
		x.fail("", nil, "%s", pointerText(size))
	case name == configName || name == indexName || name == adapterConfigName || name == "tokenizer.json":
		x.folder(filepath.Dir(path))
	case isWeights(name):
		x.weightsFile(path, info)
	case isRows(name):
		x.datasetFile(path)
	case isPickle(name):
		x.fail("", []Library{Quartet}, "a pickle, which can run code when it is loaded; convert it with safetensors' convert.py or download the .safetensors files")
		x.judge(Quartet)
	case bytes.HasPrefix(head, []byte("GGUF")):
		x.fail("", []Library{Quartet}, "a GGUF file, llama.cpp's format; take the folder with .safetensors files that it was made from")
		x.judge(Quartet)
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		x.fail("", nil, "a zip archive; unpack it and examine the folder")
	default:
		x.fail("", nil, "neither weights nor a dataset; name a .safetensors or .jsonl file, or a folder")
	}
}

// hubCache examines the snapshot that a cache entry of the Hugging Face Hub calls main, or its only one.
func (x *exam) hubCache(dir string) {
	commit, err := os.ReadFile(filepath.Join(dir, "refs", "main"))
	snapshots, _ := os.ReadDir(filepath.Join(dir, "snapshots"))
	name := strings.TrimSpace(string(commit))
	if err != nil && len(snapshots) == 1 {
		name = snapshots[0].Name()
	}
	if name == "" || !filepath.IsLocal(name) || len(snapshots) == 0 {
		x.fail("", nil, "a cache entry of the Hub without a snapshot called main; name one of the folders in snapshots, or download it again")
		return
	}
	blobs, _ := os.ReadDir(filepath.Join(dir, "blobs"))
	for _, b := range blobs {
		if strings.HasSuffix(b.Name(), ".content.incomplete") || strings.HasSuffix(b.Name(), ".incomplete") && !strings.HasSuffix(b.Name(), ".parts.incomplete") {
			x.warn("blobs/"+b.Name(), "an unfinished download; download again, which goes on where it stopped")
		}
	}
	x.r.Path = filepath.Join(dir, "snapshots", name)
	x.folder(x.r.Path)
}

// files looks at what may be wrong with any folder's files: placeholders, dangling links, unfinished downloads.
func (x *exam) files(dir string, names []string, all []Library) {
	for _, name := range names {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			x.fail(name, all, "a link to a file that is gone; download it again")
			continue
		}
		if !info.Mode().IsRegular() {
			continue
		}
		if size, ok := pointerSize(first(path)); ok {
			x.fail(name, all, "%s", pointerText(size))
			continue
		}
		switch strings.ToLower(filepath.Ext(name)) {
		case ".incomplete", ".part", ".partial", ".crdownload", ".aria2", ".tmp":
			x.warn(name, "looks like an unfinished download; finish it or remove it")
		}
		if isWeights(name) {
			if at, hole := holeAt(path, info.Size()); hole {
				x.warn(name, "nothing was ever written from byte %d on for a while, as in an unfinished download; compare its SHA-256 or download it again", at)
			}
		}
	}
}

var pointerLine = regexp.MustCompile(`(?m)^size ([0-9]{1,15})$`)

// pointerSize is the size of the file that a Git LFS pointer stands for.
func pointerSize(head []byte) (int64, bool) {
	if !bytes.HasPrefix(head, []byte("version https://git-lfs")) {
		return 0, false
	}
	m := pointerLine.FindSubmatch(head)
	if m == nil {
		return 0, true
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n, true
}

func pointerText(size int64) string {
	return "a Git LFS pointer in place of the file of " + console.Bytes(size) + "; run `git lfs pull` or download it again"
}

// holeAt is where a file first has a hole of a page or more before its end, on file systems that tell.
func holeAt(path string, size int64) (int64, bool) {
	const seekHole = 4
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	at, err := syscall.Seek(int(f.Fd()), 0, seekHole)
	return at, err == nil && at < size
}

// first is the beginning of a file.
func first(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	return head[:n]
}

func isWeights(name string) bool { return strings.HasSuffix(name, ".safetensors") }

// isPickle tells files that Python unpickles from others. Training's own leftovers, which no loader of models reads, are none.
func isPickle(name string) bool {
	switch name {
	case "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "optimizer.bin", "scaler.pt":
		return false
	}
	switch strings.ToLower(filepath.Ext(name)) {
	case ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle":
		return true
	}
	return false
}

// cause is an error of the file system without the path.
func cause(err error) string {
	var p *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is nothing here"
	case errors.As(err, &p):
		return p.Err.Error()
	}
	return err.Error()
}
