package hub

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// manifestName is the last entry of a backup: what it holds.
const manifestName = "quartet-manifest.json"

// manifest is what a backup holds.
type manifest struct {
	Files []manifestFile `json:"files"`
}

type manifestFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // in hexadecimal
}

// Zip is a backup in a zip archive: the files as they are, since weights don't compress, and a manifest of their digests. The same
// files make the same bytes. It is written beside its place, and takes it with Commit.
type Zip struct {
	path     string
	file     *os.File // of a temporary name
	archive  *zip.Writer
	manifest manifest
}

// OpenZip begins the backup that an address such as "zip://path/to/backup.zip" names. A file that is there already must be a
// backup; Commit replaces it.
func OpenZip(dest string) (*Zip, error) {
	path, ok := strings.CutPrefix(dest, "zip://")
	if !ok || path == "" || strings.HasSuffix(path, "/") {
		return nil, fmt.Errorf("%q names no archive; write it as in zip://backups/lora.zip", dest)
	}
	if _, err := os.Lstat(path); err == nil {
		b, err := openBackup(path)
		if err != nil {
			return nil, fmt.Errorf("%s is there and is no backup of this program; choose another path", path)
		}
		b.Close()
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.new")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, obstacle(err))
	}
	return &Zip{path: path, file: f, archive: zip.NewWriter(f)}, nil
}

// String is the address.
func (z *Zip) String() string { return "zip://" + z.path }

// Put appends the file at path under name.
func (z *Zip) Put(ctx context.Context, name, path string, add func(bytes int64)) error {
	return uploaded(ctx, name, z, z.put(ctx, name, path, add))
}

func (z *Zip) put(ctx context.Context, name, path string, add func(int64)) error {
	if err := checkPath(name); err != nil {
		return err
	}
	if name == manifestName {
		return errors.New("the backup's own manifest has that name; rename the file")
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, obstacle(err))
	}
	defer f.Close()
	sum := sha256.New()
	w, err := z.entry(name)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.MultiWriter(w, sum), told{untilDone{ctx, f}, add})
	if err != nil {
		return obstacle(err)
	}
	z.manifest.Files = append(z.manifest.Files, manifestFile{name, n, hex.EncodeToString(sum.Sum(nil))})
	return nil
}

// entry begins one, stored as it is, of a time that says nothing.
func (z *Zip) entry(name string) (io.Writer, error) {
	return z.archive.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)})
}

// told is a reader that tells how much it reads.
type told struct {
	io.Reader
	add func(bytes int64)
}

func (t told) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.add(int64(n))
	return n, err
}

// Commit writes the manifest and puts the archive, on disk as a whole, in its place.
func (z *Zip) Commit(ctx context.Context) error {
	if err := z.commit(); err != nil {
		return fmt.Errorf("write %s: %w", z.path, obstacle(err))
	}
	return nil
}

func (z *Zip) commit() error {
	w, err := z.entry(manifestName)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(z.manifest, "", "  ")
	if err != nil {
		return err
	}
	if _, err := w.Write(append(text, '\n')); err != nil {
		return err
	}
	if err := z.archive.Close(); err != nil {
		return err
	}
	if err := z.file.Chmod(0o644); err != nil {
		return err
	}
	if err := z.file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(z.file.Name(), z.path); err != nil {
		return err
	}
	z.file.Close()
	z.file = nil
	return syncDir(filepath.Dir(z.path))
}

// Close removes what was not committed.
func (z *Zip) Close() error {
	if z.file == nil {
		return nil
	}
	z.file.Close()
	err := os.Remove(z.file.Name())
	z.file = nil
	return err
}

// syncDir brings a folder's names to the disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
