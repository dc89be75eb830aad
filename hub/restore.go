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
	"syscall"
)

// Backup is an open archive that Zip made, whose manifest is in order.
type Backup struct {
	path     string
	size     int64 // bytes
	archive  *zip.ReadCloser
	manifest manifest
	entries  map[string]*zip.File
}

// OpenBackup opens the archive at path and holds its entries against its manifest. Nothing of their content is read yet.
func OpenBackup(path string) (*Backup, error) {
	b, err := openBackup(path)
	if err != nil {
		return nil, fmt.Errorf("read backup %s: %w", path, obstacle(err))
	}
	return b, nil
}

func openBackup(path string) (*Backup, error) {
	archive, err := zip.OpenReader(path)
	if errors.Is(err, zip.ErrFormat) {
		return nil, errors.New("it is no zip archive, or it was cut off; take another copy")
	}
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		archive.Close()
		return nil, err
	}
	b := &Backup{path: path, size: info.Size(), archive: archive, entries: map[string]*zip.File{}}
	if err := b.check(); err != nil {
		archive.Close()
		return nil, err
	}
	return b, nil
}

const mostManifest = 8 << 20 // bytes

// check requires entries and manifest to name the same plain files.
func (b *Backup) check() error {
	folded := map[string]bool{}
	for _, e := range b.archive.File {
		low := strings.ToLower(e.Name)
		err := checkPath(e.Name)
		switch {
		case err != nil:
			return fmt.Errorf("it holds %q, but %w; don't use it", e.Name, err)
		case !e.Mode().IsRegular():
			return fmt.Errorf("it holds %q, which is no file; don't use it", e.Name)
		case folded[low]:
			return fmt.Errorf("it holds %q twice; don't use it", e.Name)
		case e.Method != zip.Store:
			return fmt.Errorf("it holds %q in packed form, which no backup of this program does; unpack it with unzip", e.Name)
		}
		folded[low], b.entries[e.Name] = true, e
	}
	e := b.entries[manifestName]
	if e == nil || e.UncompressedSize64 > mostManifest {
		return errors.New("it has no manifest, so that it is no backup of this program, or it was cut off; unpack it with unzip")
	}
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, mostManifest))
	if err != nil || json.Unmarshal(text, &b.manifest) != nil {
		return errors.New("its manifest is damaged; take another copy")
	}
	delete(b.entries, manifestName)
	named := map[string]bool{}
	left := b.size // entries that lie upon each other would make more of an archive than it holds
	for _, f := range b.manifest.Files {
		e := b.entries[f.Name]
		if e == nil || named[f.Name] || f.Size < 0 || e.UncompressedSize64 != uint64(f.Size) || e.CompressedSize64 != uint64(f.Size) {
			return fmt.Errorf("%q is not there as its manifest says; take another copy", f.Name)
		}
		if left -= f.Size; left < 0 {
			return fmt.Errorf("%q and the files before it are larger than the archive; don't use it", f.Name)
		}
		named[f.Name] = true
	}
	if len(named) != len(b.entries) {
		return errors.New("it holds files that its manifest does not name; don't use it")
	}
	return nil
}

// Close closes the archive.
func (b *Backup) Close() error { return b.archive.Close() }

// Files are the files in the backup, whose places are in the archive.
func (b *Backup) Files() []File {
	var all []File
	for _, f := range b.manifest.Files {
		all = append(all, File{f.Name, f.Size, f.SHA256})
	}
	return all
}

// Restore writes the files into the folder dir, which must not be there or be empty, and verifies them. They appear when all
// of them are right; before, nothing does.
func (b *Backup) Restore(ctx context.Context, dir string, progress func(file string, done, total int64)) error {
	if err := b.restore(ctx, dir, progress); err != nil {
		return fmt.Errorf("restore %s to %s: %w", b.path, dir, ended(ctx, err))
	}
	return nil
}

func (b *Backup) restore(ctx context.Context, dir string, progress func(string, int64, int64)) error {
	if old, err := os.ReadDir(dir); err == nil && len(old) > 0 {
		return errors.New("the folder is not empty; choose another one")
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return obstacle(err)
	}
	var done, total int64
	for _, f := range b.manifest.Files {
		total += f.Size
	}
	dir, err := filepath.Abs(dir) // so that "." has a name
	if err != nil {
		return err
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o777); err != nil {
		return obstacle(err)
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(parent, &disk); err == nil && int64(disk.Bavail)*disk.Bsize < total {
		return fmt.Errorf("it needs %d MB, and the disk has %d MB free", total>>20, int64(disk.Bavail)*disk.Bsize>>20)
	}
	temp, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+".*.new")
	if err != nil {
		return obstacle(err)
	}
	defer os.RemoveAll(temp)
	for _, f := range b.manifest.Files {
		add := func(n int64) {
			done += n
			progress(f.Name, done, total)
		}
		if err := b.extract(ctx, f, filepath.Join(temp, filepath.FromSlash(f.Name)), add); err != nil {
			return fmt.Errorf("%s: %w", f.Name, obstacle(err))
		}
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return obstacle(err)
	}
	if err := appear(temp, dir); err != nil {
		return obstacle(err)
	}
	return syncDir(parent)
}

// appear gives a folder its place, or its content to the empty folder that is there, in which somebody may be.
func appear(temp, dir string) error {
	entries, err := os.ReadDir(temp)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return os.Rename(temp, dir)
	}
	for _, e := range entries {
		if err := os.Rename(filepath.Join(temp, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

// extract writes one file and verifies it. No more is written than the manifest says.
func (b *Backup) extract(ctx context.Context, f manifestFile, to string, add func(int64)) (err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	r, err := b.entries[f.Name].Open()
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), told{untilDone{ctx, io.LimitReader(r, f.Size)}, add})
	if errors.Is(err, zip.ErrChecksum) || err == nil && (n != f.Size || hex.EncodeToString(sum.Sum(nil)) != f.SHA256) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is damaged in the archive; take another copy")
	}
	if err != nil {
		return err
	}
	return errors.Join(w.Sync(), syncDir(filepath.Dir(to)))
}
