package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"quartet/event"
	"quartet/pipeline"
)

// storage is a hub with the repository me/phi, which takes large files in parts of 1 MiB.
type storage struct {
	mu      sync.Mutex
	held    int            // the part that is not answered, 0 for none
	holding chan struct{}  // closed when it has come
	taken   map[string]int // how often each part was taken
	refuses bool           // it takes no token, and says which one it got
	commits [][]string     // names of files
}

func newStorage(t *testing.T) *storage {
	s := &storage{held: 3, holding: make(chan struct{}), taken: map[string]int{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	t.Setenv("HF_ENDPOINT", server.URL)
	t.Setenv("HF_HOME", t.TempDir())
	for _, name := range []string{"HF_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"} {
		t.Setenv(name, "")
	}
	return s
}

func (s *storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := func(v any) { json.NewEncoder(w).Encode(v) }
	if s.refuses {
		http.Error(w, "no: "+r.Header.Get("Authorization"), http.StatusUnauthorized)
		return
	}
	const part = 1 << 20
	switch path := r.URL.Path; {
	case strings.Contains(path, "/preupload/"):
		var asked struct {
			Files []struct {
				Path string
				Size int
			}
		}
		json.Unmarshal(body, &asked)
		mode := "regular"
		if asked.Files[0].Size > part {
			mode = "lfs"
		}
		reply(map[string]any{"files": []any{map[string]any{"path": asked.Files[0].Path, "uploadMode": mode}}})
	case strings.HasSuffix(path, "/objects/batch"):
		var asked struct {
			Objects []struct {
				OID  string
				Size int
			}
		}
		json.Unmarshal(body, &asked)
		o := asked.Objects[0]
		header := map[string]any{"chunk_size": fmt.Sprint(part)}
		for i := range (o.Size + part - 1) / part {
			header[fmt.Sprint(i+1)] = fmt.Sprintf("http://%s/part/%s/%d?key=quartetsecret", r.Host, o.OID, i+1)
		}
		upload := map[string]any{"href": fmt.Sprintf("http://%s/complete", r.Host), "header": header}
		reply(map[string]any{"objects": []any{map[string]any{"oid": o.OID, "actions": map[string]any{"upload": upload}}}})
	case strings.HasPrefix(path, "/part/"):
		if s.held > 0 && strings.HasSuffix(path, fmt.Sprint("/", s.held)) {
			s.held = 0
			close(s.holding)
			s.mu.Unlock()
			<-r.Context().Done()
			s.mu.Lock()
			return
		}
		s.taken[path]++
		w.Header().Set("ETag", `"a"`)
	case strings.Contains(path, "/commit/"):
		var names []string
		for lines := bufio.NewReader(bytes.NewReader(body)); ; {
			line, err := lines.ReadBytes('\n')
			var l struct {
				Key   string
				Value struct{ Path string }
			}
			if json.Unmarshal(line, &l) == nil && l.Key != "header" {
				names = append(names, l.Value.Path)
			}
			if err == io.EOF {
				break
			}
		}
		s.commits = append(s.commits, names)
		reply(map[string]any{"commitOid": strings.Repeat("d", 40)})
	case strings.Contains(path, "/tree/"):
		fmt.Fprint(w, `[]`)
	case strings.HasPrefix(path, "/api/models/"):
		reply(map[string]any{"sha": strings.Repeat("c", 40), "private": true})
	default:
		fmt.Fprint(w, `{}`)
	}
}

// stands are the states of a workspace's stages.
func stands(t *testing.T, dir string) (all []string) {
	t.Helper()
	w, err := pipeline.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := pipeline.Status(w)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		all = append(all, p.State)
	}
	return all
}

// TestWorkerUploads has a worker make the variants and take two of them elsewhere. The run is cancelled in the middle of a large
// file, goes on from there, and has nothing to do after that. A hub that refuses the token leaves all but the upload done. The
// token, the links and the keys are in nothing that anybody can read.
func TestWorkerUploads(t *testing.T) {
	quartet := program(t)
	hub := newStorage(t)
	const token = "hf_quartetsecret"
	t.Setenv("HF_TOKEN", token)
	dir := smallWorkspace(t)
	config, err := os.OpenFile(filepath.Join(dir, "config.toml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = config.WriteString("\n[upload]\nbase = \"hf://me/phi\"\nlora = \"zip://backup/lora.zip\"\n")
	if err := config.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var seen []byte
	do := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(quartet, append(args, "-C", dir)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		seen = append(seen, out...)
		return string(out)
	}
	if plan := do("plan"); !strings.Contains(plan, "base (5.0") || !strings.Contains(plan, "to hf://me/phi, lora (123 kB) to zip://"+dir+"/backup/lora.zip") {
		t.Errorf("the plan is\n%s", plan)
	}

	do("run", "--detach")
	c := dial(t, dir)
	select {
	case <-hub.holding:
	case <-t.Context().Done():
		t.Fatal("no part came")
	}
	if err := c.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	finished(t, c)
	fresh := slices.Repeat([]string{"fresh"}, 5)
	if got := stands(t, dir); !slices.Equal(got, append(slices.Clone(fresh), "interrupted")) {
		t.Errorf("after the cancelled run the stages are %v", got)
	}
	do("run", "--detach")
	runs := 0
	await(t, c, func(e event.Event) bool {
		if e.Kind == event.RunDone {
			runs++
		}
		return runs == 2
	})
	if got := stands(t, dir); !slices.Equal(got, append(slices.Clone(fresh), "fresh")) {
		t.Errorf("after the second run the stages are %v", got)
	}
	hub.mu.Lock()
	if len(hub.taken) != 5 || len(hub.commits) != 1 || !slices.Contains(hub.commits[0], "README.md") || !slices.Contains(hub.commits[0], "model.safetensors") {
		t.Errorf("the hub has %v, %v", hub.taken, hub.commits)
	}
	for part, times := range hub.taken {
		if times != 1 {
			t.Errorf("%s was taken %d times", part, times)
		}
	}
	hub.refuses = true
	hub.mu.Unlock()
	if out, err := exec.Command(quartet, "restore", filepath.Join(dir, "backup/lora.zip"), filepath.Join(dir, "again")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if plan := do("plan"); strings.Contains(plan, " yes ") {
		t.Errorf("the plan is\n%s", plan)
	}

	remade := strings.Replace(fileText(t, dir, "config.toml"), `base = "hf://me/phi"`, `base = "hf://me/other"`, 1)
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(remade), 0o666); err != nil {
		t.Fatal(err)
	}
	do("run", "--detach")
	runs = 0
	var failure string
	await(t, c, func(e event.Event) bool {
		if e.Kind == event.StageFailed {
			failure = e.Text
		}
		if e.Kind == event.RunDone {
			runs++
		}
		return runs == 3
	})
	if got := stands(t, dir); !slices.Equal(got, append(slices.Clone(fresh), "failed")) || !strings.Contains(failure, "set HF_TOKEN") {
		t.Errorf("after the refusal the stages are %v: %s", got, failure)
	}

	w, err := pipeline.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	if err := event.ReadJournal(w.JournalDir(), func(e event.Event) bool {
		if p := e.Progress; p != nil && e.Stage == pipeline.Upload && p.Unit == "bytes" && p.Total > 0 {
			told[p.Label] = true
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if !told["base/model.safetensors"] || !told["lora/adapter_model.safetensors"] {
		t.Errorf("progress was told of %v", told)
	}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(token)) {
			t.Errorf("%s tells the token", path)
		}
		if info, _ := d.Info(); bytes.Contains(data, []byte("quartetsecret")) && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has a link to the storage, and others may read it", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if line := fileText(t, "/proc", fmt.Sprint(info(t, c).PID), "cmdline"); strings.Contains(line, "quartetsecret") || bytes.Contains(seen, []byte("quartetsecret")) {
		t.Error("the token or a link is told")
	}
}

func fileText(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
