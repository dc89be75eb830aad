package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestSecretsStayInside has a worker fetch its base with tokens and keys in its environment: they are in no command line of it and
// in no file that it writes, be it a run that goes well or one that the hub refuses.
func TestSecretsStayInside(t *testing.T) {
	quartet := program(t)
	tinyHub(t)
	secrets := map[string]string{"HF_TOKEN": "hf_quartetsecret", "AWS_ACCESS_KEY_ID": "AKIDQUARTETSECRET", "AWS_SECRET_ACCESS_KEY": "keyquartetsecret",
		"QUARTET_DRIVE_CLIENT_ID": "idquartetsecret", "QUARTET_DRIVE_CLIENT_SECRET": "clientquartetsecret"}
	for name, value := range secrets {
		t.Setenv(name, value)
	}
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no: "+r.Header.Get("Authorization"), http.StatusUnauthorized)
	}))
	t.Cleanup(refusing.Close)
	for _, hub := range []string{os.Getenv("HF_ENDPOINT"), refusing.URL} {
		t.Setenv("HF_ENDPOINT", hub)
		t.Setenv("HF_HOME", t.TempDir())
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte("model.name = \"org/tiny\"\ndataset.name = \"org/rows\"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(quartet, "run", "base", "--detach", "-C", dir).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		c := dial(t, dir)
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", info(t, c).PID))
		if err != nil || !bytes.Contains(line, []byte("worker")) {
			t.Fatalf("%q, %v", line, err)
		}
		finished(t, c)
		seen := slices.Concat(out, line)
		if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			seen = append(seen, data...)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(seen, []byte("run_done")) {
			t.Errorf("%s: no journal was read", hub)
		}
		for name, value := range secrets {
			if bytes.Contains(seen, []byte(value)) {
				t.Errorf("%s: %s is told", hub, name)
			}
		}
	}
}
