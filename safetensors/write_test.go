package safetensors

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func golden() string {
	if dir := os.Getenv("QUARTET_GOLDEN"); dir != "" {
		return dir
	}
	return "../testdata/golden"
}

// entriesOf are a file's tensors in reverse, so that writing has to sort them.
func entriesOf(f *File) []Entry {
	var entries []Entry
	for _, t := range slices.Backward(f.Tensors()) {
		entries = append(entries, Entry{t.Name, t.DType, t.Shape, Bytes(t.Data)})
	}
	return entries
}

func TestGoldenRewrite(t *testing.T) {
	// nf4_vectors holds both F16 and BF16, forward I64: they pin the order of types of one size.
	for _, name := range []string{"phi/base/model", "phi/lora/adapter_model", "phi/nf4/model", "phi/nf4_vectors", "phi/forward", "demo/adapter/adapter_model"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(golden(), name+".safetensors")
			want, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) && os.Getenv("QUARTET_GOLDEN") != "" {
				t.Skipf("%s is missing", path)
			}
			if err != nil {
				t.Fatal(err)
			}
			f, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			rewritten := filepath.Join(t.TempDir(), "x")
			if err := Write(rewritten, f.Metadata, entriesOf(f)); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(rewritten)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("rewritten file differs; header:\n%.300q\nwant\n%.300q", got[8:], want[8:])
			}
		})
	}
}

func zeros(name string, d DType, shape ...int) Entry {
	n, _ := byteSize(d, shape)
	return Entry{name, d, shape, Bytes(make([]byte, n))}
}

func TestWriteOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	var asked []string
	var entries []Entry
	for i, d := range []DType{Bool, U8, I8, I16, F16, BF16, I32, F32, F64, I64} {
		for _, suffix := range []string{"b", "a"} {
			name := fmt.Sprintf("%d%s", i, suffix)
			e := zeros(name, d, 1)
			data := e.Data
			e.Data = func() ([]byte, error) {
				asked = append(asked, name)
				return data()
			}
			entries = append(entries, e)
		}
	}
	if err := Write(path, map[string]string{"b": "<&>\u2028é\n", "a": "\"\\"}, entries); err != nil {
		t.Fatal(err)
	}
	want := strings.Fields("9a 9b 8a 8b 7a 7b 6a 6b 5a 5b 4a 4b 3a 3b 2a 2b 1a 1b 0a 0b")
	if !slices.Equal(asked, want) {
		t.Errorf("data was asked for in order %v", asked)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []string
	for _, tensor := range f.Tensors() {
		got = append(got, tensor.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("file holds %v", got)
	}
	if f.Metadata["b"] != "<&>\u2028é\n" || f.Metadata["a"] != "\"\\" {
		t.Errorf("metadata %q", f.Metadata)
	}
}

func TestWriteHeader(t *testing.T) {
	for want, entries := range map[string][]Entry{
		`{"__metadata__":{"format":"pt"}}`: nil,
		`{"__metadata__":{"format":"pt"},"<é>":{"dtype":"F16","shape":[],"data_offsets":[0,2]}} `: {zeros("<é>", F16)},
	} {
		got, _, err := encodeHeader(ptMetadata, entries)
		if err != nil || string(got[8:]) != want {
			t.Errorf("got  %q, %v\nwant %q", got[8:], err, want)
		}
	}
	got, _, err := encodeHeader(map[string]string{"b": "\u2028\x7f<", "a": "\"\\/\b\t\n\f\r\x1b"}, nil)
	if want := `{"__metadata__":{"a":"\"\\/\b\t\n\f\r\u001b","b":"` + "\u2028\x7f<" + `"}}`; err != nil || strings.TrimRight(string(got[8:]), " ") != want {
		t.Errorf("got  %q, %v\nwant %q", got[8:], err, want)
	}
	if _, _, err := encodeHeader(map[string]string{"a": "\xff"}, nil); err == nil || err.Error() != `metadata "a" is not valid UTF-8; encode it` {
		t.Errorf("got %v", err)
	}
	if got, _, err := encodeHeader(nil, nil); err != nil || string(got[8:]) != "{}      " {
		t.Errorf("got %q, %v", got[8:], err)
	}
}

func TestWriteRefuses(t *testing.T) {
	short := Entry{"a", F32, []int{2}, Bytes(make([]byte, 7))}
	broken := Entry{"a", F32, []int{2}, func() ([]byte, error) { return nil, &fs.PathError{Op: "read", Path: "base", Err: syscall.EIO} }}
	for _, c := range []struct {
		entry Entry
		err   string
	}{
		{short, `tensor "a": F32[2] takes 8 bytes, but its data has 7; give data of the declared shape`},
		{broken, `tensor "a": read base: input/output error`},
		{zeros("", U8, 1), ""},
		{zeros("b", U8, 1), `tensor "b": appears twice; give each tensor its own name`},
		{zeros("__metadata__", U8, 1), `tensor "__metadata__": name cannot be stored; rename the tensor`},
		{zeros("\xff", U8, 1), `tensor "\xff": name cannot be stored; rename the tensor`},
		{Entry{"a", "F8", nil, Bytes(nil)}, `tensor "a": dtype "F8" cannot be stored; use one of I64, F64, F32, I32, BF16, F16, I16, I8, U8, BOOL`},
		{Entry{"a", U8, []int{-1}, Bytes(nil)}, `tensor "a": shape [-1] cannot be stored; use up to 16 dimensions, none negative`},
		{Entry{"a", F64, []int{1 << 61}, Bytes(nil)}, `tensor "a": shape overflows 64 bits`},
		{Entry{"a", U8, nil, nil}, `tensor "a": entry has no Data; set it`},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "model.safetensors")
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Write(path, nil, []Entry{zeros("b", U8, 4), c.entry})
		if c.err == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if want := "write " + path + ": " + c.err; err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		onlyOld(t, dir)
	}
}

// onlyOld checks that a folder holds the old file untouched and nothing else.
func onlyOld(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("folder holds %v", entries)
	}
	if old, err := os.ReadFile(filepath.Join(dir, "model.safetensors")); err != nil || string(old) != "old" {
		t.Errorf("old file is now %q, %v", old, err)
	}
}

func TestWriteWithoutFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "x")
	want := "write " + path + ": folder is missing; make it first"
	if err := Write(path, nil, nil); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestWriteReadOnlyFolder(t *testing.T) {
	dir := t.TempDir()
	if os.Getuid() == 0 {
		// Root may write everywhere; another file-system user, for this thread alone, may not.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0); errno != 0 {
			t.Fatal(errno)
		}
		defer syscall.RawSyscall(syscall.SYS_SETFSUID, 0, 0, 0)
	} else {
		if err := os.Chmod(dir, 0o555); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(dir, 0o755)
	}
	path := filepath.Join(dir, "x")
	want := "write " + path + ": folder is read-only for this user; change its permissions or choose another"
	if err := Write(path, nil, nil); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestWriteFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	path := filepath.Join(dir, "model.safetensors")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := false
	big := Entry{"a", U8, []int{1 << 20}, func() ([]byte, error) {
		asked = true
		return make([]byte, 1<<20), nil
	}}
	want := "write " + path + ": disk is full; free at least 1048656 bytes and run again"
	if err := Write(path, nil, []Entry{big}); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if asked {
		t.Error("the data was computed although the disk is too small")
	}
	onlyOld(t, dir)
}

func TestObstacle(t *testing.T) {
	for err, want := range map[error]string{
		&fs.PathError{Op: "write", Err: syscall.ENOSPC}: "disk is full; free at least 9 bytes and run again",
		syscall.EDQUOT: "disk quota is used up; free at least 9 bytes and run again",
		&fs.PathError{Op: "write", Err: syscall.EFBIG}:   "9 bytes are too many for one file here; raise ulimit -f or write smaller shards",
		&fs.PathError{Op: "open", Err: syscall.EROFS}:    "file system is read-only; choose another folder",
		&fs.PathError{Op: "open", Err: syscall.EACCES}:   "folder is read-only for this user; change its permissions or choose another",
		&os.LinkError{Op: "rename", Err: syscall.EISDIR}: "is a directory; check the disk and the path",
		&fs.PathError{Op: "write", Err: syscall.EIO}:     "input/output error; check the disk and the path",
	} {
		if got := obstacle(err, 9).Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestWriteFolder(t *testing.T) {
	entries := []Entry{zeros("a", F16, 10), zeros("b", F32, 5), zeros("c", U8, 50), zeros("d", F16, 5), zeros("e", F16, 5)}
	total := 20 + 20 + 50 + 10 + 10
	for _, c := range []struct {
		limit int
		want  []string // names of each shard, in file order
	}{
		{total, []string{"b a d e c"}},
		{total - 1, []string{"b a d c", "e"}},
		{40, []string{"c", "b a", "d e"}},
		{1, []string{"a", "b", "c", "d", "e"}},
	} {
		dir := t.TempDir()
		if err := WriteFolder(dir, entries, int64(c.limit)); err != nil {
			t.Fatal(err)
		}
		ck, err := OpenFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(ck.Names(), " "); got != "a b c d e" {
			t.Errorf("limit %d: names %s", c.limit, got)
		}
		var got []string
		for _, f := range ck.open {
			var names []string
			for _, tensor := range f.Tensors() {
				names = append(names, tensor.Name)
			}
			got = append(got, strings.Join(names, " "))
			if f.Metadata["format"] != "pt" {
				t.Errorf("metadata %v", f.Metadata)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("limit %d: shards %q, want %q", c.limit, got, c.want)
		}
		ck.Close()

		want := "write " + dir + `: folder already holds "` + filepath.Base(oldest(t, dir)) + `"; choose an empty folder`
		if err := WriteFolder(dir, entries, 40); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func oldest(t *testing.T, dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return entries[0].Name()
}

func TestWriteFolderIndex(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFolder(dir, []Entry{zeros("b<", F16, 3), zeros("a", F32, 2)}, 10); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, indexName))
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "metadata": {
    "total_size": 14
  },
  "weight_map": {
    "a": "model-00002-of-00002.safetensors",
    "b<": "model-00001-of-00002.safetensors"
  }
}
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWriteFolderLeavesNothing(t *testing.T) {
	broken := zeros("c", U8, 10)
	broken.Data = func() ([]byte, error) { return nil, errors.New("source is gone") }
	for _, entries := range [][]Entry{
		{zeros("a", U8, 10), zeros("b", U8, 10), broken},
		{zeros("a", U8, 10), zeros("b", U8, 10), zeros("a", U8, 10)},
	} {
		dir := t.TempDir()
		if err := WriteFolder(dir, entries, 10); err == nil {
			t.Error("no error")
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("folder holds %v, %v", left, err)
		}
	}
}
