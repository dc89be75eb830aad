package hub

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// python is an interpreter that has Python's huggingface_hub, which QUARTET_PYTHON names.
func python(t *testing.T) string {
	t.Helper()
	name := os.Getenv("QUARTET_PYTHON")
	if name == "" {
		t.Skip("QUARTET_PYTHON names no interpreter with huggingface_hub")
	}
	return name
}

// finds checks what Python makes of the server's repository: these files and no others. With a folder it uploads that first.
func (s *server) finds(t *testing.T, want map[string][]byte, cache string, offline bool, arguments ...string) {
	t.Helper()
	var lines []string
	for name, data := range want {
		lines = append(lines, fmt.Sprintf("%s %x\n", name, sha256.Sum256(data)))
	}
	slices.Sort(lines)
	cmd := exec.Command(python(t), append([]string{"testdata/python.py"}, arguments...)...)
	cmd.Env = append(os.Environ(), "HF_ENDPOINT="+s.hub.URL, "HF_TOKEN="+secret, "HF_HUB_CACHE="+cache, "HF_HUB_DISABLE_XET=1", "HF_HUB_DISABLE_TELEMETRY=1", "HF_HUB_DISABLE_PROGRESS_BARS=1")
	if offline {
		cmd.Env = append(cmd.Env, "HF_HUB_OFFLINE=1")
	}
	var problems strings.Builder
	cmd.Stderr = &problems
	if out, err := cmd.Output(); err != nil || string(out) != strings.Join(lines, "") {
		t.Errorf("Python finds\n%snot\n%s%v %s", out, strings.Join(lines, ""), err, problems.String())
	}
}

// TestPython holds cache and test server against Python's huggingface_hub.
func TestPython(t *testing.T) {
	python(t)
	files := tinyModel()
	files["generation_config.json"] = []byte(`{}`)
	s := newServer(t, files)

	ours := s.client("", nil)
	download(t, ours, tiny)
	s.finds(t, files, ours.Cache, true, "org/tiny")
	s.content()
	s.finds(t, files, ours.Cache, false, "org/tiny")
	if sent := s.content(); sent != 0 {
		t.Errorf("Python fetched %d bytes that were there", sent)
	}

	theirs := filepath.Join(t.TempDir(), "hub")
	s.finds(t, files, theirs, false, "org/tiny")
	if s.content() == 0 {
		t.Error("Python fetched nothing")
	}
	c := s.client(theirs, nil)
	holds(t, c, download(t, c, tiny), files)
	if sent := s.content(); sent != 0 {
		t.Errorf("%d bytes came that Python had fetched", sent)
	}
	c.Offline = true
	holds(t, c, download(t, c, tiny), files)
}

// TestPythonUploads has Python's huggingface_hub upload to the test server and download what was uploaded here. What either
// has uploaded, the other one takes as being there.
func TestPythonUploads(t *testing.T) {
	python(t)
	files := newModel()
	dir := folder(t, files)

	s := newRepository(t)
	s.finds(t, files, filepath.Join(t.TempDir(), "hub"), false, "org/new", dir)
	s.has(t, files)
	if s.received != 320_000 || len(s.commits) != 1 || !s.private {
		t.Errorf("Python sent %d bytes in %d commits, private %v", s.received, len(s.commits), s.private)
	}
	if _, err := upload(context.Background(), s.uploader(nil), dir, t.TempDir()); err != nil || s.received != 320_000 || len(s.commits) != 1 {
		t.Errorf("%v; %d bytes in %d commits after Python had uploaded all", err, s.received, len(s.commits))
	}

	s = newRepository(t)
	if _, err := upload(context.Background(), s.uploader(nil), dir, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	s.finds(t, files, filepath.Join(t.TempDir(), "hub"), false, "org/new", dir)
	if s.received != 320_000 || len(s.commits) != 1 {
		t.Errorf("Python sent again: %d bytes in %d commits", s.received, len(s.commits))
	}
}
