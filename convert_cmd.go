package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quartet/console"
	"quartet/event"
	"quartet/model"
	"quartet/pipeline"
)

// runConvert is `quartet convert SRC DST`.
func runConvert(ctx context.Context, args []string, std streams) error {
	f := flags("convert", "SRC DST", std)
	adapter := ""
	f.Func("adapter", "merge the LoRA adapter in this `folder` into the weights", func(folder string) error {
		if adapter = folder; folder == "" { // as of a variable that is not set
			return errors.New("name a folder")
		}
		return nil
	})
	folders, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(folders) != 2 {
		return errUsage{errors.New("give the folder to convert, and the one to make")}
	}
	src, dst := folders[0], filepath.Clean(folders[1])
	b, _, err := pipeline.OpenBackend("cpu")
	if err != nil {
		return err
	}
	show := console.New(std.out, console.ModeFor(std.out, false), console.Color(std.out))
	emit := func(e event.Event) { e.Time = time.Now(); show(e) }
	size, err := makeFolder(dst, func(temp string) error {
		return model.Convert(b, src, adapter, temp, event.NewMeter("bytes", emit).Until(ctx))
	})
	if err != nil {
		return err
	}
	emit(event.Event{Kind: event.Log, Text: fmt.Sprintf("%s written, %s", dst, console.Bytes(size))})
	return nil
}

// makeFolder has fill write into a new folder beside path, writes that through to the disk and gives it its name, which
// nothing may have yet. The folder is there whole or not at all. It returns the bytes of its files.
func makeFolder(path string, fill func(temp string) error) (size int64, err error) {
	taken := fmt.Errorf("write %s: there is something already, and nothing is overwritten; choose another name or move it away", path)
	if _, err := os.Lstat(path); err == nil {
		return 0, taken
	}
	parent := filepath.Dir(path)
	prefix := filepath.Join(parent, "."+filepath.Base(path)+".converting-")
	removeDead(prefix)
	temp := fmt.Sprintf("%s%08x", prefix, rand.Uint32())
	if err := os.Mkdir(temp, 0o777); errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("write %s: the folder %s is missing; make it first", path, parent)
	} else if err != nil {
		return 0, fmt.Errorf("write %s: %w; choose another folder", path, reason(err))
	}
	defer os.RemoveAll(temp) // gone once renamed
	if alive, err := lock(temp); err == nil {
		defer alive.Close()
	}
	if err := fill(temp); err != nil {
		return 0, err
	}
	if size, err = syncAll(temp); err != nil {
		return 0, fmt.Errorf("write %s: %w; check the disk", path, reason(err))
	}
	err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) { // as on network file systems
		err = os.Rename(temp, path) // replaces an empty folder at the most
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return 0, taken
	case err != nil:
		return 0, fmt.Errorf("write %s: %w; check the disk", path, reason(err))
	}
	if err := syncPath(parent); err != nil {
		return 0, fmt.Errorf("write %s: %w; check the disk", path, reason(err))
	}
	return size, nil
}

// removeDead removes the folders of conversions that were killed: those that no process holds the lock of.
func removeDead(prefix string) {
	left, _ := filepath.Glob(globbed(prefix) + "*")
	for _, temp := range left {
		if dead, err := lock(temp); err == nil {
			os.RemoveAll(temp)
			dead.Close()
		}
	}
}

// globbed is a path as a pattern that matches it alone.
func globbed(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// lock takes a folder's lock, which ends with this process at the latest.
func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// syncAll writes the files of a folder and then itself through to the disk, and adds up their bytes.
func syncAll(dir string) (size int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return 0, err
		}
		if err := syncPath(filepath.Join(dir, e.Name())); err != nil {
			return 0, err
		}
		size += info.Size()
	}
	return size, syncPath(dir)
}

// syncPath writes a file or a folder through to the disk. Some network file systems cannot sync folders.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// reason is an error of the file system without its path.
func reason(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	if l := (*os.LinkError)(nil); errors.As(err, &l) {
		return l.Err
	}
	return err
}
