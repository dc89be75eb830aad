package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestDigestIsOfTheChunks(t *testing.T) {
	data := make([]byte, 2*chunkBytes+5)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	whole := sha256.New()
	for from := 0; from < len(data); from += chunkBytes {
		sum := sha256.Sum256(data[from:min(from+chunkBytes, len(data))])
		whole.Write(sum[:])
	}
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	got, err := hashFile(path, int64(len(data)))
	if want := hex.EncodeToString(whole.Sum(nil)); err != nil || got != want {
		t.Errorf("%s, %v; not %s", got, err, want)
	}
	if _, err := hashFile(path, int64(len(data))+1); err == nil {
		t.Error("a file that became shorter was hashed")
	}
	if empty, err := hashChunks(bytes.NewReader(nil), 0); err != nil || len(empty) != 64 {
		t.Errorf("nothing: %q, %v", empty, err)
	}
}

// TestDigestsAreRemembered changes content behind the digester's back: it must believe its memory for a settled file, and
// must not for one that is too young.
func TestDigestsAreRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	d, err := openDigester(filepath.Join(t.TempDir(), "digests.json"))
	if err != nil {
		t.Fatal(err)
	}
	digest := func(text string, at time.Time) string {
		write(t, path, text)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		f, err := d.file(path)
		if err != nil {
			t.Fatal(err)
		}
		return f.Digest
	}
	old, now := time.Now().Add(-time.Minute), time.Now()
	a := digest("aaaa", old)
	if digest("bbbb", old) != a {
		t.Error("a settled file was hashed again")
	}
	if digest("ccccc", old) == a {
		t.Error("another size went unnoticed")
	}
	b := digest("bbbb", now)
	if digest("dddd", now) == b {
		t.Error("a young file's digest was believed")
	}
	if err := d.save(); err != nil {
		t.Fatal(err)
	}
	again, err := openDigester(d.path)
	if err != nil || len(again.known) != 1 {
		t.Errorf("read back %v, %v", again.known, err)
	}
}
