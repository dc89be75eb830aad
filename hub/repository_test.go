package hub

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// uploader is a client of the server as of a program that starts anew, with the token.
func (s *server) uploader(waited func(time.Duration)) *Client {
	c := s.client(s.t.TempDir(), waited)
	c.Token = secret
	c.http.Transport.(watch).RoundTripper.(*http.Transport).ExpectContinueTimeout = 50 * time.Millisecond
	return c
}

// folder writes files into a new folder.
func folder(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// upload sends a folder and returns the bytes that were told.
func upload(ctx context.Context, c *Client, dir, state string) (told int64, err error) {
	files, err := LocalFiles(dir)
	if err != nil {
		return 0, err
	}
	r, err := OpenRepository(ctx, "hf://org/new", state, c, false)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	err = Upload(ctx, r, files, func(_ string, done, _ int64) { told = done })
	return told, err
}

// has checks the server's files.
func (s *server) has(t *testing.T, want map[string][]byte) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !maps.EqualFunc(s.files, want, bytes.Equal) {
		t.Errorf("the repository has %v", slices.Sorted(maps.Keys(s.files)))
	}
}

func size(files map[string][]byte) (n int64) {
	for _, data := range files {
		n += int64(len(data))
	}
	return n
}

// newModel is the files of a model with large files of several parts and of one.
func newModel() map[string][]byte {
	return map[string][]byte{
		"config.json": []byte(`{"model_type": "phi"}`), "README.md": []byte("# a\n"), "empty.txt": {}, "sub/vocab.json": random(40, 9_000),
		"model.safetensors": random(41, 300_000), "adapter.safetensors": random(42, 20_000),
	}
}

// newRepository is a server without a repository.
func newRepository(t *testing.T) *server {
	s := newServer(t, map[string][]byte{})
	s.missing = true
	return s
}

func TestUpload(t *testing.T) {
	files := newModel()
	s := newRepository(t)
	dir, state := folder(t, files), t.TempDir()
	told, err := upload(context.Background(), s.uploader(nil), dir, state)
	if err != nil || told != size(files) {
		t.Fatalf("told %d of %d bytes: %v", told, size(files), err)
	}
	s.has(t, files)
	if len(s.commits) != 1 || !s.private || s.received != 320_000 {
		t.Errorf("%d commits, private %v, %d bytes received", len(s.commits), s.private, s.received)
	}
	if left, _ := os.ReadDir(state); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
