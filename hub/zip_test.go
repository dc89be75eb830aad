package hub

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// variantFolder is a folder with files to back up.
func variantFolder(t *testing.T) (dir string, files map[string][]byte) {
	t.Helper()
	dir, files = t.TempDir(), map[string][]byte{"model.safetensors": random(1, 3_000_000), "config.json": []byte("{}"), "empty": {}, "sub/notes.txt": []byte("notes")}
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, data, 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, files
}

func backUp(ctx context.Context, from, to string) error {
	z, err := OpenZip("zip://" + to)
	if err != nil {
		return err
	}
	defer z.Close()
	files, err := LocalFiles(from)
	if err != nil {
		return err
	}
	return Upload(ctx, z, files, func(string, int64, int64) {})
}

func restore(archive, dir string) error {
	b, err := OpenBackup(archive)
	if err != nil {
		return err
	}
	defer b.Close()
	return b.Restore(context.Background(), dir, func(string, int64, int64) {})
}

// names are all paths in a folder.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all[1:]
}

func TestBackup(t *testing.T) {
	from, files := variantFolder(t)
	to := t.TempDir()
	first, second := filepath.Join(to, "a.zip"), filepath.Join(to, "b.zip")
	for _, archive := range []string{first, second, first} {
		if err := backUp(context.Background(), from, archive); err != nil {
			t.Fatal(err)
		}
	}
	a, errA := os.ReadFile(first)
	b, errB := os.ReadFile(second)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("two backups of the same files differ: %v %v", errA, errB)
	}
	dir := filepath.Join(to, "restored")
	if err := restore(first, dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(want), err)
		}
	}
	if err := restore(first, dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("over a folder: %v", err)
	}
	if left := names(t, to); len(left) != 3+len(files)+1 { // two archives, the folder, its files and sub
		t.Errorf("there are %q", left)
	}
}

// TestRestoreToHere restores to folders named by where one is, and below one that is not there.
func TestRestoreToHere(t *testing.T) {
	from, files := variantFolder(t)
	archive := filepath.Join(t.TempDir(), "a.zip")
	if err := backUp(context.Background(), from, archive); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for _, dir := range []string{"one/two", "."} {
		if dir == "." {
			t.Chdir(t.TempDir())
		}
		if err := restore(archive, dir); err != nil {
			t.Fatal(err)
		}
		here, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(here, dir, "model.safetensors")); err != nil || !bytes.Equal(got, files["model.safetensors"]) {
			t.Errorf("%s: %d bytes, %v", dir, len(got), err)
		}
	}
}

func TestBackupCancelled(t *testing.T) {
	from, _ := variantFolder(t)
	to := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	z, err := OpenZip("zip://" + filepath.Join(to, "a.zip"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := LocalFiles(from)
	if err != nil {
		t.Fatal(err)
	}
	err = Upload(ctx, z, files, func(_ string, done, _ int64) {
		if done > 1_000_000 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := z.Close(); err != nil {
		t.Error(err)
	}
	if left := names(t, to); len(left) > 0 {
		t.Errorf("a cancelled backup leaves %q", left)
	}
	mine := filepath.Join(to, "mine.zip")
	if err := os.WriteFile(mine, []byte("my own"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenZip("zip://" + mine); err == nil || !strings.Contains(err.Error(), "choose another path") {
		t.Errorf("over another file: %v", err)
	}
}

// entry is one of a hostile archive.
type entry struct {
	name, content string
	change        func(h *zip.FileHeader)
}

// TestOverlappingBackup requires an archive whose entries lie upon each other, so that it unpacks to more than itself, to be refused before
// anything is written.
func TestOverlappingBackup(t *testing.T) {
	const copies, size = 100, 1 << 16
	content := make([]byte, size)
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	var text bytes.Buffer
	w := zip.NewWriter(&text)
	var files []string
	for i := range copies {
		name := fmt.Sprintf("x%03d", i)
		h := &zip.FileHeader{Name: name, CRC32: crc32.ChecksumIEEE(content), CompressedSize64: size, UncompressedSize64: size}
		f, err := w.CreateRaw(h)
		if err == nil && i == copies-1 {
			_, err = f.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, fmt.Sprintf(`{"name": %q, "size": %d, "sha256": %q}`, name, size, sum))
	}
	f, err := w.CreateHeader(&zip.FileHeader{Name: manifestName})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, `{"files": [%s]}`, strings.Join(files, ","))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "a.zip")
	if err := os.WriteFile(archive, text.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := restore(archive, filepath.Join(t.TempDir(), "out")); err == nil || !strings.Contains(err.Error(), "larger than the archive") {
		t.Error(err)
	}
}

// TestHostileBackups requires archives that are not what a backup should be to be refused, with nothing written.
func TestHostileBackups(t *testing.T) {
	const sum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // of "hello"
	list := func(files string) entry { return entry{manifestName, `{"files": [` + files + `]}`, nil} }
	file := func(name string) string { return `{"name": "` + name + `", "size": 5, "sha256": "` + sum + `"}` }
	for name, c := range map[string]struct {
		entries []entry
		cut     int // bytes left out at the end
		want    string
	}{
		"up":           {[]entry{{"../../x", "hello", nil}, list(file("../../x"))}, 0, "does not lie in the folder"},
		"absolute":     {[]entry{{"/tmp/x", "hello", nil}, list(file("/tmp/x"))}, 0, "does not lie in the folder"},
		"backslash":    {[]entry{{`..\x`, "hello", nil}, list("")}, 0, "characters"},
		"device":       {[]entry{{"aux.txt", "hello", nil}, list(file("aux.txt"))}, 0, "device"},
		"link":         {[]entry{{"x", "/etc/passwd", func(h *zip.FileHeader) { h.SetMode(fs.ModeSymlink | 0o777) }}, list("")}, 0, "no file"},
		"folder":       {[]entry{{"x/", "", nil}, list("")}, 0, "plain path"},
		"twice":        {[]entry{{"x", "hello", nil}, {"x", "hello", nil}, list(file("x"))}, 0, "twice"},
		"by case":      {[]entry{{"x", "hello", nil}, {"X", "hello", nil}, list(file("x") + "," + file("X"))}, 0, "twice"},
		"packed":       {[]entry{{"x", strings.Repeat("0", 100_000), func(h *zip.FileHeader) { h.Method = zip.Deflate }}, list("")}, 0, "packed"},
		"no manifest":  {[]entry{{"x", "hello", nil}}, 0, "no manifest"},
		"bad manifest": {[]entry{{"x", "hello", nil}, {manifestName, "{", nil}}, 0, "manifest is damaged"},
		"missing":      {[]entry{list(file("x"))}, 0, "not there as its manifest says"},
		"extra":        {[]entry{{"x", "hello", nil}, {"y", "hello", nil}, list(file("x"))}, 0, "does not name"},
		"named twice":  {[]entry{{"x", "hello", nil}, list(file("x") + "," + file("x"))}, 0, "not there as its manifest says"},
		"size":         {[]entry{{"x", "hello, all", nil}, list(file("x"))}, 0, "not there as its manifest says"},
		"huge":         {[]entry{{"x", "hello", nil}, list(strings.Replace(file("x"), "5", "4294967296000", 1))}, 0, "not there as its manifest says"},
		"digest":       {[]entry{{"x", "hallo", nil}, list(file("x"))}, 0, "damaged in the archive"},
		"cut off":      {[]entry{{"x", "hello", nil}, list(file("x"))}, 30, "cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			var text bytes.Buffer
			w := zip.NewWriter(&text)
			for _, e := range c.entries {
				h := &zip.FileHeader{Name: e.name, Method: zip.Store}
				if e.change != nil {
					e.change(h)
				}
				f, err := w.CreateHeader(h)
				if err == nil && e.content != "" {
					_, err = io.WriteString(f, e.content)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			top := t.TempDir()
			archive, within := filepath.Join(top, "a.zip"), filepath.Join(top, "one", "two")
			if err := errors.Join(os.MkdirAll(within, 0o777), os.WriteFile(archive, text.Bytes()[:text.Len()-c.cut], 0o666)); err != nil {
				t.Fatal(err)
			}
			err := restore(archive, filepath.Join(within, "out"))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, not %s", err, c.want)
			}
			if left := names(t, top); len(left) != 3 {
				t.Errorf("there are %q", left)
			}
		})
	}
}
