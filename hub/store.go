package hub

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Store is a place that files are uploaded to. Its String is the address that users write. One goroutine at a time may use it.
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
	time time.Time
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
		files = append(files, LocalFile{name, path, info.Size(), info.ModTime()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, obstacle(err))
	}
	return files, nil
}

// Options are what places want to know.
type Options struct {
	State  string                     // folder in which an unfinished upload keeps what it needs to go on
	Client *Client                    // of the Hugging Face Hub
	Public bool                       // a repository of the hub is public
	Show   func(address, code string) // told where and with which code the user lets the program into Google Drive; nil where nobody could be asked
}

// Open is the place that an address names: hf://org/name, s3://bucket/prefix, gdrive://folder or zip://path.
func Open(ctx context.Context, dest string, o Options) (Store, error) {
	if err := CheckPlace(dest); err != nil {
		return nil, err
	}
	scheme, _, _ := strings.Cut(dest, "://")
	return places[scheme](ctx, dest, o)
}

// places opens each kind of place.
var places = map[string]func(ctx context.Context, dest string, o Options) (Store, error){
	"hf": func(ctx context.Context, dest string, o Options) (Store, error) {
		return opened(OpenRepository(ctx, dest, o.State, o.Client, o.Public))
	},
	"s3": func(ctx context.Context, dest string, o Options) (Store, error) {
		return opened(OpenS3(ctx, dest, o.State))
	},
	"gdrive": func(_ context.Context, dest string, o Options) (Store, error) {
		return opened(OpenDrive(dest, o.State, o.Show))
	},
	"zip": func(_ context.Context, dest string, _ Options) (Store, error) { return opened(OpenZip(dest)) },
}

// CheckPlace is an error for an address that names none of the kinds of places.
func CheckPlace(dest string) error {
	if scheme, _, there := strings.Cut(dest, "://"); there && places[scheme] != nil {
		return nil
	}
	return fmt.Errorf("%q is no place for uploads; write hf://org/name, s3://bucket/prefix, gdrive://folder or zip://path", dest)
}

// opened is no store where there is an error, not a store that is nil.
func opened[T Store](s T, err error) (Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Upload puts files in a place and commits them. told is told the file at hand and how many bytes of all files are there, one call
// at a time. A file that changes meanwhile is an error.
func Upload(ctx context.Context, s Store, files []LocalFile, told func(file string, done, total int64)) error {
	var mu sync.Mutex
	var done, total int64
	for _, f := range files {
		total += f.Size
	}
	for _, f := range files {
		add := func(n int64) {
			mu.Lock()
			defer mu.Unlock()
			done += n
			told(f.Name, done, total)
		}
		failed := s.Put(ctx, f.Name, f.Path, add)
		if now, err := os.Stat(f.Path); ctx.Err() == nil && (err != nil || now.Size() != f.Size || !now.ModTime().Equal(f.time)) {
			return fmt.Errorf("upload %s to %s: the file has changed meanwhile; run again when nothing writes it", f.Name, s)
		}
		if failed != nil {
			return failed
		}
	}
	return s.Commit(ctx)
}

var _, _, _, _ Store = (*S3)(nil), (*Drive)(nil), (*Repository)(nil), (*Zip)(nil)
