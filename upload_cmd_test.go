package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quartet/demo"
)

// uploadHub takes uploads to me/phi, all of them as regular files, and keeps what the last commit brought.
func uploadHub(t *testing.T) (commit map[string][]byte) {
	commit = map[string][]byte{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer hf_secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch {
		case strings.Contains(r.URL.Path, "/preupload/"):
			var asked struct{ Files []struct{ Path string } }
			if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
				t.Error(err)
			}
			var answers []string
			for _, f := range asked.Files {
				answers = append(answers, fmt.Sprintf(`{"path": %q, "uploadMode": "regular"}`, f.Path))
			}
			fmt.Fprintf(w, `{"files": [%s]}`, strings.Join(answers, ","))
		case strings.Contains(r.URL.Path, "/commit/"):
			lines := bufio.NewReader(r.Body)
			for {
				line, err := lines.ReadBytes('\n')
				var l struct {
					Key   string
					Value struct{ Path, Content string }
				}
				if json.Unmarshal(line, &l) == nil && l.Key == "file" {
					commit[l.Value.Path], _ = base64.StdEncoding.DecodeString(l.Value.Content)
				}
				if err == io.EOF {
					break
				}
			}
			fmt.Fprintf(w, `{"commitOid": %q}`, strings.Repeat("d", 40))
		case strings.Contains(r.URL.Path, "/tree/"):
			fmt.Fprint(w, `[]`)
		case strings.HasPrefix(r.URL.Path, "/api/models/"):
			fmt.Fprintf(w, `{"sha": %q, "private": true}`, strings.Repeat("c", 40))
		default:
			fmt.Fprint(w, `{}`)
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("HF_ENDPOINT", server.URL)
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_TOKEN", "hf_secret")
	for _, name := range []string{"HF_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"} {
		t.Setenv(name, "")
	}
	return commit
}

func TestUpload(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "models", "phi-2-base")
	if err := os.MkdirAll(base, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := demo.WriteModel(base); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte("[model]\nname = \"embedded\"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	commit := uploadHub(t)
	do := func(status int, args ...string) string {
		t.Helper()
		var out, problems strings.Builder
		if got := run(context.Background(), append([]string{"upload", "-C", dir}, args...), streams{strings.NewReader(""), &out, &problems}); got != status {
			t.Errorf("%v: status %d, not %d: %s%s", args, got, status, out.String(), problems.String())
		}
		if strings.Contains(out.String()+problems.String(), "hf_secret") {
			t.Errorf("%v tells the token", args)
		}
		return out.String() + problems.String()
	}

	if text := do(0, "base", "hf://me/phi", "--dry-run"); !strings.Contains(text, "model.safetensors") || !strings.Contains(text, "README.md") || len(commit) > 0 {
		t.Errorf("the dry run says\n%s and sends %d files", text, len(commit))
	}
	if text := do(0, "base", "hf://me/phi"); !strings.Contains(text, "/me/phi") {
		t.Errorf("the page is not told: %s", text)
	}
	for _, name := range []string{"config.json", "model.safetensors", "tokenizer.json"} {
		data, err := os.ReadFile(filepath.Join(base, name))
		if err != nil || string(commit[name]) != string(data) {
			t.Errorf("%s came as %d bytes of %d, %v", name, len(commit[name]), len(data), err)
		}
	}
	if card := string(commit["README.md"]); !strings.Contains(card, "library_name: transformers") {
		t.Errorf("the model card is\n%s", card)
	}

	archive, again := filepath.Join(dir, "base.zip"), filepath.Join(dir, "again")
	do(0, "base", "zip://"+archive)
	if status, out, problems := quartet("restore", archive, again); status != 0 || !strings.Contains(out, "5 files in "+again) {
		t.Errorf("%d %s%s", status, out, problems)
	}
	for name, data := range commit {
		if back, err := os.ReadFile(filepath.Join(again, name)); name != "README.md" && (err != nil || string(back) != string(data)) {
			t.Errorf("%s came back as %d bytes of %d, %v", name, len(back), len(data), err)
		}
	}
	if status, out, _ := quartet("restore", "--dry-run", archive); status != 0 || !strings.Contains(out, "model.safetensors") {
		t.Errorf("%d %s", status, out)
	}
	if status, _, problems := quartet("restore", filepath.Join(base, "config.json"), filepath.Join(dir, "x")); status != 1 || !strings.Contains(problems, "no zip archive") {
		t.Errorf("%d %s", status, problems)
	}

	if text := do(1, "lora", "hf://me/phi"); !strings.Contains(text, "quartet run lora") {
		t.Error(text)
	}
	if text := do(1, "base", "ftp://me/phi"); !strings.Contains(text, "hf://org/name") {
		t.Error(text)
	}
	do(1, "large", "hf://me/phi")
	do(2, "base")
}
