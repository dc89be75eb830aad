package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	chunkBytes = 8 << 20
	// settledAge is how long before its digest was taken a file must have changed last: a younger file could change again
	// without its time telling, because some file systems count whole seconds.
	settledAge = 2 * time.Second
)

// digester computes the digests of files: the SHA-256 of the SHA-256 sums of the file's chunks of 8 MiB, in order, so
// that chunks are read in parallel. It remembers them by path, size, time of change and inode.
type digester struct {
	path  string // of the memory on disk
	known map[string]digestEntry
	dirty bool
}

type digestEntry struct {
	Size   int64  `json:"size"`
	MTime  int64  `json:"mtime_ns"`
	Inode  uint64 `json:"inode"`
	Taken  int64  `json:"taken_ns"` // when the digest was computed
	Digest string `json:"digest"`
}

func (e digestEntry) sameFile(o digestEntry) bool {
	return e.Size == o.Size && e.MTime == o.MTime && e.Inode == o.Inode
}

func openDigester(path string) (*digester, error) {
	d := &digester{path: path}
	found, err := readJSON(path, &d.known)
	if !found || d.known == nil {
		d.known = map[string]digestEntry{}
	}
	return d, err
}

// save writes the memory, without the files that are gone.
func (d *digester) save() error {
	if !d.dirty {
		return nil
	}
	for path := range d.known {
		if !exists(path) {
			delete(d.known, path)
		}
	}
	d.dirty = false
	return writeJSON(d.path, d.known)
}

func stat(path string) (digestEntry, error) {
	info, err := os.Stat(path)
	if err != nil {
		return digestEntry{}, err
	}
	if !info.Mode().IsRegular() {
		return digestEntry{}, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	e := digestEntry{Size: info.Size(), MTime: info.ModTime().UnixNano()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		e.Inode = s.Ino
	}
	return e, nil
}

// file is the digest of the file at an absolute path, from memory where the file is surely still the same.
func (d *digester) file(path string) (File, error) {
	e, err := stat(path)
	if err != nil {
		return File{}, err
	}
	if k, ok := d.known[path]; ok && k.sameFile(e) && k.Taken-k.MTime >= int64(settledAge) {
		return File{filepath.Base(path), k.Size, k.Digest}, nil
	}
	e.Taken = time.Now().UnixNano()
	if e.Digest, err = hashFile(path, e.Size); err != nil {
		return File{}, err
	}
	d.known[path], d.dirty = e, true
	return File{filepath.Base(path), e.Size, e.Digest}, nil
}

// moved carries what is known about a file over to the path it was renamed to.
func (d *digester) moved(from, to string) {
	k, known := d.known[from]
	if e, err := stat(to); known && err == nil && k.sameFile(e) {
		d.known[to], d.dirty = k, true
	}
	delete(d.known, from)
}

func hashFile(path string, size int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	digest, err := hashChunks(f, size)
	if err != nil {
		return "", &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return digest, nil
}

// hashChunks is the digest of size bytes, which it reads on all processors.
func hashChunks(r io.ReaderAt, size int64) (string, error) {
	chunks := (size + chunkBytes - 1) / chunkBytes
	sums := make([][sha256.Size]byte, chunks)
	errs := make([]error, min(int(chunks), runtime.GOMAXPROCS(0)))
	var next atomic.Int64
	var wait sync.WaitGroup
	for worker := range errs {
		wait.Go(func() {
			buffer := make([]byte, min(size, chunkBytes))
			for i := next.Add(1) - 1; i < chunks; i = next.Add(1) - 1 {
				chunk := buffer[:min(chunkBytes, size-i*chunkBytes)]
				if n, err := r.ReadAt(chunk, i*chunkBytes); n < len(chunk) {
					if err == io.EOF {
						err = errors.New("the file became shorter while it was read")
					}
					errs[worker] = err
					return
				}
				sums[i] = sha256.Sum256(chunk)
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	whole := sha256.New()
	for _, s := range sums {
		whole.Write(s[:])
	}
	return hex.EncodeToString(whole.Sum(nil)), nil
}

// File is one file of an artefact or of a stage's input.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Digest string `json:"digest"`
}

// Tree is the files of a folder that matter, by name.
type Tree []File

// Bytes is the size of all files together.
func (t Tree) Bytes() (n int64) {
	for _, f := range t {
		n += f.Size
	}
	return n
}

func (t Tree) find(name string) (File, bool) {
	i := slices.IndexFunc(t, func(f File) bool { return f.Name == name })
	if i < 0 {
		return File{}, false
	}
	return t[i], true
}

// digest names the content of all files together.
func (t Tree) digest() string {
	h := sha256.New()
	for _, f := range t {
		fmt.Fprintf(h, "%q %d %s\n", f.Name, f.Size, f.Digest)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// weighs tells by its name whether a file of a model folder has a say in what is computed from it. A read-me has none, and
// neither has the log of the training.
func weighs(name string) bool {
	if strings.HasPrefix(name, ".") || name == trainingName {
		return false
	}
	switch filepath.Ext(name) {
	case ".json", ".safetensors", ".txt":
		return true
	}
	return false
}

// every tells that a file is part of what a stage made.
func every(name string) bool { return !strings.HasPrefix(name, ".") }

// tree is the digests of a folder's own files of which matters is true. Folders in it don't count. A missing folder is
// fs.ErrNotExist.
func (d *digester) tree(dir string, matters func(name string) bool) (Tree, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	t := Tree{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !matters(e.Name()) {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			continue
		}
		f, err := d.file(path)
		if err != nil {
			return nil, err
		}
		t = append(t, f)
	}
	return t, nil
}
