package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// writeFile puts data at a path such that a crash leaves the former content or the new one, on disk when it returns.
func writeFile(path string, data []byte) error {
	temp := path + ".tmp"
	f, err := os.Create(temp)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, obstacle(err))
	}
	defer os.Remove(temp) // gone once renamed
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, obstacle(err))
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, obstacle(err))
	}
	return syncFolder(filepath.Dir(path))
}

// writeJSON puts a value at a path, as writeFile does.
func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return writeFile(path, append(data, '\n'))
}

// readJSON reads a file of the workspace's own state. found is false where there is none or where it is unreadable as
// JSON: such a file is worth no more than a missing one.
func readJSON(path string, into any) (found bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, obstacle(err))
	}
	return json.Unmarshal(data, into) == nil, nil
}

// syncFolder makes renames in a folder last. Some network file systems cannot sync folders; there it does nothing.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, obstacle(err))
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return fmt.Errorf("sync %s: %w", dir, obstacle(err))
	}
	return nil
}

// settle writes a finished folder or file through to the disk. It sets the files that this program made back by settledAge, so that
// a change made right after is seen by its time; files that share their content with others keep their time.
func settle(path string) error {
	err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Nlink == 1 {
			at := time.Now().Add(-settledAge)
			if err := os.Chtimes(path, at, at); err != nil {
				return err
			}
		}
		return f.Sync()
	})
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, obstacle(err))
	}
	return syncFolder(path)
}

// place makes target the same file as source without doubling its bytes where the file systems allow that, by a hard
// link; else it copies. The source is never changed.
func place(source, target string, copied func(bytes int64)) error {
	real, err := filepath.EvalSymlinks(source)
	if err != nil {
		return fmt.Errorf("read %s: %w", source, obstacle(err))
	}
	if os.Link(real, target) == nil {
		if info, err := os.Stat(target); err == nil {
			copied(info.Size())
		}
		return nil
	}
	return copyFile(real, target, copied)
}

func copyFile(source, target string, copied func(bytes int64)) (err error) {
	in, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("read %s: %w", source, obstacle(err))
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("write %s: %w", target, obstacle(err))
	}
	for err == nil {
		var n int64
		n, err = io.CopyN(out, in, 64<<20)
		copied(n)
	}
	if err == io.EOF {
		err = nil
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy %s to %s: %w", source, target, obstacle(err))
	}
	return nil
}

// exists reports whether something lies at a path; what cannot be looked at counts as there.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// obstacle says what to do about an error of the file system, without the path, which the message names already.
func obstacle(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC):
		return errors.New("disk is full; free some space and run again")
	case errors.Is(err, syscall.EDQUOT):
		return errors.New("disk quota is used up; free some space and run again")
	case errors.Is(err, syscall.EROFS):
		return errors.New("file system is read-only; choose another folder")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("no permission; change the folder's permissions or choose another")
	case errors.Is(err, syscall.ENOTDIR):
		return errors.New("a part of the path is a file, not a folder; move it away or choose another folder")
	}
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
