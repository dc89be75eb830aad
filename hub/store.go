package hub

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Store is a place that files are uploaded to. Its String is the address that users write.
type Store interface {
	fmt.Stringer
	// Put sends the file at path under name, which has slashes, unless a file with the same content is there already. add is
	// told the bytes that are there now, less those that were lost; several goroutines may call it.
	Put(ctx context.Context, name, path string, add func(bytes int64)) error
	// Commit completes the upload after the last Put. Some places show nothing of it before.
	Commit(ctx context.Context) error
	// Close lets go of what the upload holds. An upload that was not committed goes on with the next one, or is gone.
	Close() error
}

// LocalFile is a file that an upload sends.
type LocalFile struct {
	Name string // its path in the folder, with slashes
	Path string // where it lies
	Size int64  // bytes
}

// LocalFiles are the files in a folder and its subfolders, sorted by name. Links to files count as files; a file that no place
// could take under its name is an error.
func LocalFiles(dir string) ([]LocalFile, error) {
	var files []LocalFile
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no file; move it out of the folder", name)
		}
		if err := checkPath(name); err != nil {
			return fmt.Errorf("%q cannot be uploaded: %w; rename it", name, err)
		}
		files = append(files, LocalFile{name, path, info.Size()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, obstacle(err))
	}
	return files, nil
}

var _, _, _ Store = (*S3)(nil), (*Drive)(nil), (*Repository)(nil)
