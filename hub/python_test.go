package hub

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPython holds cache and test server against Python's huggingface_hub. It runs where QUARTET_PYTHON is an interpreter
// that has it.
func TestPython(t *testing.T) {
	python := os.Getenv("QUARTET_PYTHON")
	if python == "" {
		t.Skip("QUARTET_PYTHON names no interpreter with huggingface_hub")
	}
	files := tinyModel()
	files["generation_config.json"] = []byte(`{}`)
	var lines []string
	for name, data := range files {
		lines = append(lines, fmt.Sprintf("%s %x\n", name, sha256.Sum256(data)))
	}
	slices.Sort(lines)
	want := strings.Join(lines, "")
	s := newServer(t, files)
	ask := func(cache string, offline bool) {
		t.Helper()
		cmd := exec.Command(python, "testdata/python.py", "org/tiny")
		cmd.Env = append(os.Environ(), "HF_ENDPOINT="+s.hub.URL, "HF_HUB_CACHE="+cache, "HF_HUB_DISABLE_XET=1", "HF_HUB_DISABLE_TELEMETRY=1", "HF_HUB_DISABLE_PROGRESS_BARS=1")
		if offline {
			cmd.Env = append(cmd.Env, "HF_HUB_OFFLINE=1")
		}
		var problems strings.Builder
		cmd.Stderr = &problems
		if out, err := cmd.Output(); err != nil || string(out) != want {
			t.Errorf("Python finds\n%snot\n%s%v %s", out, want, err, problems.String())
		}
	}

	ours := s.client("", nil)
	download(t, ours, tiny)
	ask(ours.Cache, true)
	s.content()
	ask(ours.Cache, false)
	if sent := s.content(); sent != 0 {
		t.Errorf("Python fetched %d bytes that were there", sent)
	}

	theirs := filepath.Join(t.TempDir(), "hub")
	ask(theirs, false)
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
