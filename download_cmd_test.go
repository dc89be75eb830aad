package main

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quartet/demo"
)

// tinyHub has the embedded model as org/tiny, one row as the dataset org/rows, and org/shards with rows in three files.
func tinyHub(t *testing.T) {
	files := map[string][]byte{}
	entries, err := fs.ReadDir(demo.Model(), ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if files[e.Name()], err = fs.ReadFile(demo.Model(), e.Name()); err != nil {
			t.Fatal(err)
		}
	}
	rows := func(from, to int) []byte {
		var lines []byte
		for i := from; i < to; i++ {
			lines = fmt.Appendf(lines, `{"instruction": "Question %d?", "response": "Answer %d."}`+"\n", i, i)
		}
		return lines
	}
	datasets := map[string]map[string][]byte{
		"org/rows":   {"rows.jsonl": rows(0, 1)},
		"org/shards": {"data/train-00000-of-00002.jsonl": rows(0, 5), "data/train-00001-of-00002.jsonl": rows(5, 9), "data/test-00000-of-00001.jsonl": rows(9, 11)},
	}
	tag := func(data []byte) string {
		return fmt.Sprintf("%x", sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(data)), data...)))
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		has := files
		for dataset := range datasets {
			if strings.Contains(r.URL.Path, "datasets/"+dataset+"/") {
				has = datasets[dataset]
			}
		}
		switch {
		case strings.Contains(r.URL.Path, "/revision/"):
			fmt.Fprintf(w, `{"sha": %q}`, strings.Repeat("c", 40))
		case strings.Contains(r.URL.Path, "/tree/"):
			var list []string
			for name, data := range has {
				list = append(list, fmt.Sprintf(`{"type": "file", "path": %q, "size": %d, "oid": %q}`, name, len(data), tag(data)))
			}
			fmt.Fprintf(w, "[%s]", strings.Join(list, ","))
		default:
			_, name, _ := strings.Cut(r.URL.Path, "/resolve/"+strings.Repeat("c", 40)+"/")
			w.Header().Set("ETag", `"`+tag(has[name])+`"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(has[name]))
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("HF_ENDPOINT", server.URL)
	t.Setenv("HF_HOME", t.TempDir())
	for _, name := range []string{"HF_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"} {
		t.Setenv(name, "")
	}
}

func quartet(args ...string) (status int, out, errors string) {
	var stdout, stderr bytes.Buffer
	status = run(context.Background(), args, streams{nil, &stdout, &stderr})
	return status, stdout.String(), stderr.String()
}

func TestDownloadCommand(t *testing.T) {
	tinyHub(t)
	status, out, errors := quartet("download", "org/tiny", "--dry-run")
	if status != 0 || !strings.Contains(out, "model.safetensors\n") || !strings.Contains(out, "files of commit cccc") {
		t.Errorf("%d %s%s", status, out, errors)
	}
	cache := filepath.Join(os.Getenv("HF_HOME"), "hub")
	if _, err := os.Stat(cache); err == nil {
		t.Error("a dry run wrote into the cache")
	}
	status, out, errors = quartet("download", "--dataset", "org/rows")
	if want := filepath.Join(cache, "datasets--org--rows", "snapshots", strings.Repeat("c", 40)); status != 0 || !strings.Contains(out, "1 file of commit cccc") || !strings.Contains(out, want) {
		t.Errorf("%d %s%s", status, out, errors)
	}
	if status, _, errors = quartet("download"); status != 2 || errors != "quartet download: give one repository of the hub, as in microsoft/phi-2\n" {
		t.Errorf("%d %s", status, errors)
	}
	if status, _, errors = quartet("download", "org/tiny", "--dataset", "--revision", "../x"); status != 1 || !strings.Contains(errors, "no revision can be called") {
		t.Errorf("%d %s", status, errors)
	}
}

// TestRunTakesTheHub makes the base of a workspace whose model is of the hub, and again offline from the cache.
func TestRunTakesTheHub(t *testing.T) {
	tinyHub(t)
	for _, offline := range []string{"", "1"} {
		t.Setenv("HF_HUB_OFFLINE", offline)
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte("model.name = \"org/tiny\"\ndataset.name = \"org/rows\"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		if status, out, errors := quartet("plan", "-C", dir); status != 0 || !strings.Contains(out, "org/tiny is to be fetched") || !strings.Contains(out, "org/rows is to be fetched") {
			t.Errorf("%d %s%s", status, out, errors)
		} else if sized := strings.Contains(out, "org/tiny is to be fetched (5.11 MB)") && strings.Contains(out, "org/rows is to be fetched (56 B)"); sized != (offline == "") {
			t.Errorf("offline %q: %s", offline, out)
		}
		if status, out, errors := quartet("run", "base", "-C", dir); status != 0 {
			t.Fatalf("%d %s%s", status, out, errors)
		}
		if _, err := os.Stat(filepath.Join(dir, "models/phi-2-base/model.safetensors")); err != nil {
			t.Error(err)
		}
	}
}

// TestRunTakesADatasetOfSeveralFiles trains on the two files of the split train, in order, and asks for no other.
func TestRunTakesADatasetOfSeveralFiles(t *testing.T) {
	tinyHub(t)
	dir := t.TempDir()
	settings := "model.name = \"embedded\"\n[dataset]\nname = \"org/shards\"\nnum_samples = 6\nheld_out = 3\nmax_length = 64\n[training]\nnum_epochs = 1\n"
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(settings), 0o666); err != nil {
		t.Fatal(err)
	}
	if status, out, errors := quartet("plan", "-C", dir); status != 0 || !strings.Contains(out, "org/shards is to be fetched (504 B)") {
		t.Errorf("%d %s%s", status, out, errors)
	}
	if status, out, errors := quartet("run", "lora", "-C", dir); status != 0 {
		t.Fatalf("%d %s%s", status, out, errors)
	}
	got, err := os.ReadFile(filepath.Join(dir, ".quartet/datasets/org--shards.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var questions []string
	for line := range strings.Lines(string(got)) {
		var row struct{ Instruction string }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		questions = append(questions, row.Instruction)
	}
	if want := "Question 0?,Question 1?,Question 2?,Question 3?,Question 4?,Question 5?,Question 6?,Question 7?,Question 8?"; strings.Join(questions, ",") != want {
		t.Errorf("the rows are %s", questions)
	}
	if tests, _ := filepath.Glob(filepath.Join(os.Getenv("HF_HOME"), "hub/datasets--org--shards/snapshots/*/data/test*")); len(tests) > 0 {
		t.Errorf("the split test was fetched: %s", tests)
	}
	if _, err := os.Stat(filepath.Join(dir, "models/phi-2-lora/adapter_model.safetensors")); err != nil {
		t.Error(err)
	}
}
