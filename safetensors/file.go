// Package safetensors reads and writes the safetensors format: single files, and checkpoint folders of one file or of
// shards with an index. Reading maps the file and copies no data; files are untrusted and checked before anything is
// allocated. Writing is atomic and byte-compatible with the reference implementation.
package safetensors

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// File is an open safetensors file. It is safe for concurrent reading.
type File struct {
	Metadata map[string]string // the header's free-form strings; nil where it has none

	mapped  []byte
	tensors []Tensor
	byName  []int32
}

// Open maps the file at path and checks its whole header, as Parse does. The file must not be shortened while it is
// open: reading what is gone kills the process. The caller closes the File.
func Open(path string) (*File, error) {
	mapped, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f, err := Parse(mapped)
	if err != nil {
		syscall.Munmap(mapped)
		return nil, fmt.Errorf("open %s: %w; download or make it again", path, err)
	}
	f.mapped = mapped
	return f, nil
}

func mapFile(path string) ([]byte, error) {
	// Looked at before it is opened, because opening a pipe waits for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, reason(err, "file")
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file; name a .safetensors file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, reason(err, "file")
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return nil, reason(err, "file")
	}
	if info.Size() == 0 {
		return nil, errors.New("file is empty; download or make it again")
	}
	mapped, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("cannot map %d bytes: %w; check ulimit -v and the file system", info.Size(), err)
	}
	return mapped, nil
}

// reason says without the path why what ("file", "folder") could not be read, and what to do.
func reason(err error, what string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is missing; check the path", what)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be read; check its permissions", what)
	}
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("%s cannot be read: %w; check the path and the disk", what, err)
}

// Tensors lists the tensors in file order. The slice belongs to the File.
func (f *File) Tensors() []Tensor { return f.tensors }

// Get finds a tensor by its name.
func (f *File) Get(name string) (Tensor, bool) {
	i, ok := slices.BinarySearchFunc(f.byName, name, func(i int32, name string) int {
		return strings.Compare(f.tensors[i].Name, name)
	})
	if !ok {
		return Tensor{}, false
	}
	return f.tensors[f.byName[i]], true
}

// Close unmaps the file. Its tensors' Data must not be touched afterwards. Closing twice does nothing.
func (f *File) Close() error {
	mapped := f.mapped
	f.mapped = nil
	if mapped == nil {
		return nil
	}
	return syscall.Munmap(mapped)
}
