package safetensors

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
)

// writeFile makes the file at path with what fill writes, or leaves path as it was. The size is reserved beforehand, so
// that a full disk is known before the work is done.
func writeFile(path string, size int64, fill func(io.Writer) error) error {
	temp := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%08x.tmp", filepath.Base(path), rand.Uint32()))
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, obstacle(err, size))
	}
	if err := fillFile(file, size, fill); err != nil {
		file.Close()
		os.Remove(temp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		os.Remove(temp)
		return fmt.Errorf("write %s: %w", path, obstacle(err, size))
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, obstacle(err, size))
	}
	return nil
}

// fillFile reserves the file's size, lets fill write it, and syncs and closes it.
func fillFile(file *os.File, size int64, fill func(io.Writer) error) error {
	if err := reserve(file, size); err != nil {
		return obstacle(err, size)
	}
	w := bufio.NewWriterSize(file, 1<<20)
	filled := fill(w)
	// An error of the disk sticks to w, and so is told from one of the data's source.
	if err := w.Flush(); err != nil {
		return obstacle(err, size)
	}
	if filled != nil {
		return filled
	}
	if err := file.Sync(); err != nil {
		return obstacle(err, size)
	}
	if err := file.Close(); err != nil {
		return obstacle(err, size)
	}
	return nil
}

// reserve takes size bytes of the disk for file, where the file system can do that.
func reserve(file *os.File, size int64) error {
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE
	switch err := syscall.Fallocate(int(file.Fd()), keepSize, 0, size); err {
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return err
	}
	return nil
}

// syncFolder makes a rename in the folder last. Some network file systems cannot sync folders; there it does nothing.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// obstacle says, without the path, what an error of the file system means and what to do about it.
func obstacle(err error, size int64) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("disk is full; free at least %d bytes and run again", size)
	case errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("disk quota is used up; free at least %d bytes and run again", size)
	case errors.Is(err, syscall.EFBIG):
		return fmt.Errorf("%d bytes are too many for one file here; raise ulimit -f or write smaller shards", size)
	case errors.Is(err, syscall.EROFS):
		return errors.New("file system is read-only; choose another folder")
	}
	var operation *fs.PathError
	var rename *os.LinkError
	if errors.As(err, &operation) {
		err = operation.Err
	} else if errors.As(err, &rename) {
		err = rename.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("folder is missing; make it first")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("folder is read-only for this user; change its permissions or choose another")
	}
	return fmt.Errorf("%w; check the disk and the path", err)
}
