package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestCacheLayout(t *testing.T) {
	files := tinyModel()
	files["pytorch_model.bin"] = random(2, 20_000)
	files["onnx/model.safetensors"] = random(3, 20_000)
	s := newServer(t, files)
	s.pageSize = 2
	c := s.client("", nil)
	var last, total int64
	snapshot, err := c.Download(context.Background(), Repo{Model, "org/tiny", "refs/pr/1"}, func(done, of int64) {
		if done < last {
			t.Errorf("progress goes from %d to %d", last, done)
		}
		last, total = done, of
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(files, "pytorch_model.bin")
	delete(files, "onnx/model.safetensors")
	holds(t, c, snapshot, files)
	want := map[string]string{"models--org--tiny/refs/refs/pr/1": commitA}
	for name, data := range files {
		want["models--org--tiny/snapshots/"+commitA+"/"+name] = "-> ../../blobs/" + digestOf(data)
		want["models--org--tiny/blobs/"+digestOf(data)] = fmt.Sprint(len(data))
		want[".locks/models--org--tiny/"+digestOf(data)+".lock"] = "0"
	}
	got := map[string]string{}
	err = filepath.WalkDir(c.Cache, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(c.Cache, path)
		info, _ := d.Info()
		got[name] = fmt.Sprint(info.Size())
		if to, err := os.Readlink(path); err == nil {
			got[name] = "-> " + to
		}
		if strings.Contains(name, "/refs/") {
			data, _ := os.ReadFile(path)
			got[name] = string(data)
		}
		return nil
	})
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("the cache holds %v, not %v; %v", got, want, err)
	}
	sum := 0
	for _, data := range files {
		sum += len(data)
	}
	if sent := s.content(); sent != sum || int(last) != sum || int(total) != sum {
		t.Errorf("%d bytes came, told as %d of %d, for %d", sent, last, total, sum)
	}
	download(t, c, tiny)
	if sent := s.content(); sent != 0 {
		t.Errorf("%d bytes came again", sent)
	}
}

// TestCutAnywhere ends downloads at a random byte, for good, and runs them again. QUARTET_CUTS=100 makes it 100 files of 256 MB.
func TestCutAnywhere(t *testing.T) {
	files := tinyModel()
	cuts, size, part := 100, 1<<20, int64(16<<10)
	if n, err := strconv.Atoi(os.Getenv("QUARTET_CUTS")); err == nil {
		cuts, size, part = n, 256<<20, 16<<20 // parts as they are
	}
	files["model.safetensors"] = random(4, size)
	s := newServer(t, files)
	worst := 0
	for i := range cuts {
		budget := rand.New(rand.NewPCG(1, uint64(i))).IntN(len(files["model.safetensors"]))
		cache := filepath.Join(t.TempDir(), "hub")
		s.set(func() { s.budget = budget })
		c := s.client(cache, nil)
		c.attempts, c.part = 1, part
		if _, err := c.Download(context.Background(), tiny, noProgress); err == nil {
			t.Fatalf("cut %d: came whole though it was cut after %d bytes", i, budget)
		}
		s.set(func() { s.budget = -1 })
		c = s.client(cache, nil)
		c.part = part
		holds(t, c, download(t, c, tiny), files)
		worst = max(worst, s.content())
		os.RemoveAll(cache)
	}
	t.Logf("%d cuts of %d bytes: at most %.3f of the content sent", cuts, size, float64(worst)/float64(size))
	if most := len(files["model.safetensors"]) * 11 / 10; worst > most {
		t.Errorf("%d bytes came, more than %d", worst, most)
	}
}

// TestDrops breaks connections again and again in one run.
func TestDrops(t *testing.T) {
	files := tinyModel()
	s := newServer(t, files)
	s.budget = 1000
	drops := 0
	c := s.client("", nil)
	c.workers = 1
	c.wait = func(context.Context, time.Duration) error {
		s.set(func() { s.budget = 7919; drops++ })
		return nil
	}
	holds(t, c, download(t, c, tiny), files)
	if drops < 20 {
		t.Errorf("only %d drops", drops)
	}
}

func helper(s *server, cache string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "QUARTET_TEST_ENDPOINT="+s.hub.URL, "QUARTET_TEST_CACHE="+cache)
	return cmd
}

// TestKilled kills a process in the middle of its download.
func TestKilled(t *testing.T) {
	files := tinyModel()
	files["model.safetensors"] = random(5, 4<<20)
	s := newServer(t, files)
	cache := filepath.Join(t.TempDir(), "hub")
	cmd, halfway := helper(s, cache), make(chan bool)
	s.inject(hold(s, 2<<20, func() { close(halfway) }))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-halfway
	cmd.Process.Kill()
	cmd.Wait() // tells that it was killed
	s.inject(nil)
	c := s.client(cache, nil)
	holds(t, c, download(t, c, tiny), files)
	if sent, most := s.content(), len(files["model.safetensors"])*11/10; sent > most {
		t.Errorf("%d bytes came, more than %d", sent, most)
	}
}

// TestTwoProcesses lets two processes fetch the same at once: one waits for the other and takes what that has brought.
func TestTwoProcesses(t *testing.T) {
	files := tinyModel()
	s := newServer(t, files)
	cache := filepath.Join(t.TempDir(), "hub")
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if out, err := helper(s, cache).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	both.Wait()
	c := s.client(cache, nil)
	c.Offline = true
	holds(t, c, download(t, c, tiny), files)
	sum := 0
	for _, data := range files {
		sum += len(data)
	}
	if sent := s.content(); sent != sum {
		t.Errorf("%d bytes came for %d", sent, sum)
	}
}

func TestLockCanBeGivenUp(t *testing.T) {
	s := newServer(t, tinyModel())
	c := s.client("", nil)
	release, err := c.lock(context.Background(), tiny, "x")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.lock(ctx, tiny, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	release()
	again, err := c.lock(context.Background(), tiny, "x")
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// TestMemory allocates for a download no more than its buffers, whatever the size.
func TestMemory(t *testing.T) {
	files := tinyModel()
	files["model.safetensors"] = random(6, 64<<20)
	s := newServer(t, files)
	c := s.client("", nil)
	c.part, c.workers = 4<<20, 8
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	download(t, c, tiny)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 24<<20 {
		t.Errorf("%d MB allocated for a file of 64 MB", n>>20)
	}
}

func TestOffline(t *testing.T) {
	files := map[string][]byte{
		"config.json": []byte(`{}`), "vocab.json": []byte(`{}`), "merges.txt": []byte("\n"),
		shardIndex:                         []byte(`{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}`),
		"model-00001-of-00002.safetensors": random(7, 50_000), "model-00002-of-00002.safetensors": random(8, 50_000),
	}
	s := newServer(t, files)
	c := s.client("", nil)
	off := s.client(c.Cache, nil)
	off.Offline = true
	refused := func(want string) {
		t.Helper()
		want = strings.ReplaceAll("download org/tiny: HF_HUB_OFFLINE is set, and the cache CACHE "+want+"; unset it and run `quartet download org/tiny`", "CACHE", c.Cache)
		if _, err := off.Download(context.Background(), tiny, noProgress); err == nil || err.Error() != want {
			t.Errorf("%v, not %s", err, want)
		}
	}
	refused("has nothing of its revision main")
	download(t, c, tiny)
	before := len(s.requests())
	snapshot := download(t, off, tiny)
	holds(t, off, snapshot, files)
	if len(snapshot.Files) != len(files) || snapshot.Note == "" || len(s.requests()) != before {
		t.Errorf("offline: %d files, note %q, %d requests", len(snapshot.Files), snapshot.Note, len(s.requests())-before)
	}
	byCommit := download(t, off, Repo{Model, "org/tiny", commitA})
	if byCommit.Dir != snapshot.Dir {
		t.Errorf("the commit lies in %s", byCommit.Dir)
	}

	s.hub.Close()
	if gone := download(t, c, tiny); gone.Dir != snapshot.Dir || !strings.Contains(gone.Note, "cannot be asked") {
		t.Errorf("without a hub: %+v", gone)
	}
	os.Remove(filepath.Join(snapshot.Dir, "merges.txt"))
	os.Remove(c.blob(tiny, digestOf(files["model-00002-of-00002.safetensors"])))
	refused("lacks tokenizer.json, model-00002-of-00002.safetensors")
	if _, err := c.Download(context.Background(), tiny, noProgress); err == nil || !strings.Contains(err.Error(), "list org/tiny: connect to 127.0.0.1") {
		t.Errorf("without a hub and with half a cache: %v", err)
	}
}

func TestRows(t *testing.T) {
	s := newServer(t, map[string][]byte{"README.md": []byte("x"), "rows.jsonl": random(9, 20_000)})
	c := s.client("", nil)
	folder := filepath.Join(c.Cache, "datasets--databricks--dolly/snapshots", commitA)
	paths, note, err := c.Rows(context.Background(), "databricks/dolly", "", noProgress)
	if err != nil || note != "" || !slices.Equal(paths, []string{filepath.Join(folder, "rows.jsonl")}) {
		t.Errorf("%s %q %v", paths, note, err)
	}
	if len(s.requests("/api/datasets/databricks/dolly/tree/")) == 0 || len(s.requests("hub HEAD /datasets/databricks/dolly/resolve/")) != 1 {
		t.Errorf("asked for %v", s.requests())
	}
	s.set(func() { s.files["train.jsonl"] = []byte("{}") })
	if paths, _, err = c.Rows(context.Background(), "databricks/dolly", "", noProgress); err != nil || !slices.Equal(paths, []string{filepath.Join(folder, "train.jsonl")}) {
		t.Errorf("%s %v", paths, err)
	}
	s.set(func() { s.files["a/train.jsonl"] = []byte("{}") })
	s.content()
	_, _, err = c.Rows(context.Background(), "databricks/dolly", "", noProgress)
	want := "dataset databricks/dolly: it has training rows in 2 folders, a, ., which may be different datasets; bring it with `quartet download --dataset databricks/dolly` and put the path of a file into dataset.name"
	if err == nil || err.Error() != want || s.content() > 0 {
		t.Errorf("%v", err)
	}
}

func TestTrainingFiles(t *testing.T) {
	for _, c := range []struct{ files, want string }{
		{"test.jsonl", "test.jsonl"}, // the only one
		{"data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet data/test-00000-of-00001.parquet", "data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet"},
		{"data/train-00000-of-00002-1a2b.parquet data/test-00000-of-00001.parquet", "error: 1 of the 2 files are there that data/train-00000-of-00002-1a2b.parquet is one of; choose a revision that has all"},
		{"default/train/0000.parquet default/train/0001.parquet default/validation/0000.parquet", "default/train/0000.parquet default/train/0001.parquet"},
		{"de/train.jsonl en/train.jsonl", "error: it has training rows in 2 folders, de, en, which may be different datasets; bring it with `quartet download --dataset databricks/dolly` and put the path of a file into dataset.name"},
		{"part-1.jsonl part-2.jsonl", "part-1.jsonl part-2.jsonl"},
		{"trains.jsonl contest.jsonl", "trains.jsonl contest.jsonl"}, // no word of a split
		{"train1.jsonl train2.jsonl test1.jsonl", "train1.jsonl train2.jsonl"},
		{"data/train-00000-of-00001.parquet data/train_gen-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"},
		{"data/train_gen-00000-of-00001.parquet data/train_sft-00000-of-00001.parquet", "error: its training rows have several names, data/train_gen-00000-of-00001.parquet, data/train_sft-00000-of-00001.parquet, which may be different datasets; bring it with `quartet download --dataset databricks/dolly` and put the path of a file into dataset.name"},
		{"train-00000-of-00002-a.parquet train-00000-of-00002-b.parquet", "error: train-00000-of-00002-a.parquet and train-00000-of-00002-b.parquet are of different files or the same shard twice; choose a revision that has each once"},
		{"train-00001-of-00002.parquet train-00002-of-00002.parquet", "error: train-00002-of-00002.parquet is a shard beyond the last; choose a revision whose shards are numbered from 0"},
		{"train.jsonl train-00000-of-00002.jsonl", "error: 1 of the 2 files are there that train-00000-of-00002.jsonl is one of; choose a revision that has all"},
		{"dev.jsonl test.jsonl", "error: none of its 2 files is named as the split train: dev.jsonl, test.jsonl; bring it with `quartet download --dataset databricks/dolly` and put the path of a file into dataset.name"},
	} {
		var files []File
		for _, name := range strings.Fields(c.files) {
			files = append(files, File{Name: name})
		}
		picked, err := trainingFiles("databricks/dolly", files)
		var names []string
		for _, f := range picked {
			names = append(names, f.Name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want {
			t.Errorf("%s\ngives %s\nnot   %s", c.files, got, c.want)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		kind        Kind
		files, want string
	}{
		{Model, "config.json model.safetensors README.md tf_model.h5 LICENSE NOTICE.md .gitattributes", "LICENSE NOTICE.md config.json model.safetensors"},
		{Model, "model.safetensors model.fp16.safetensors model.safetensors.index.json model-00001-of-00001.safetensors", "model.safetensors"},
		{
			Model, "consolidated.safetensors model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json",
			"model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json",
		},
		{Model, "a.safetensors b.safetensors model.safetensors.index.json", "a.safetensors b.safetensors model.safetensors.index.json"},
		{Model, "config.json pytorch_model.bin", "error: its weights are pickles only, which can run code when they are read; choose a model or revision with .safetensors files"},
		{Model, "config.json x/model.safetensors", "error: it has no .safetensors file; choose a model with weights in that format"},
		{Dataset, "README.md train.jsonl data/test.jsonl x.parquet", "data/test.jsonl train.jsonl"},
		{Dataset, "data/train.parquet data/test.parquet README.md", "data/test.parquet data/train.parquet"},
		{Dataset, "train-0.parquet train-1.parquet notes.jsonl", "train-0.parquet train-1.parquet"},
		{Dataset, "data/train.csv", "error: its rows are in .csv files, and only .jsonl and .parquet are read; turn them into a .jsonl file and name that in dataset.name"},
		{Dataset, "README.md", "error: it has no .jsonl or .parquet file; choose a dataset with rows in that format"},
	} {
		var files []File
		for _, name := range strings.Fields(c.files) {
			files = append(files, File{Name: name})
		}
		chosen, err := choose(Repo{Kind: c.kind}, files)
		var names []string
		for _, f := range chosen {
			names = append(names, f.Name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want {
			t.Errorf("of %s: %s, not %s", c.files, got, c.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("hf_file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		env         string
		want        Settings
		token, fail string
	}{
		{"", Settings{"https://huggingface.co", "/u/.cache/huggingface/hub", "", "/u/.cache/huggingface/token", false}, "", ""},
		{"XDG_CACHE_HOME=/x", Settings{"https://huggingface.co", "/x/huggingface/hub", "", "/x/huggingface/token", false}, "", ""},
		{
			"HF_HOME=~/hf HF_ENDPOINT=http://mirror/ HF_HUB_OFFLINE=yes HUGGING_FACE_HUB_TOKEN=b",
			Settings{"http://mirror", "/u/hf/hub", "b", "/u/hf/token", true}, "b", "",
		},
		{
			"HF_HUB_CACHE=/c HF_TOKEN=a HUGGING_FACE_HUB_TOKEN=b HF_HUB_OFFLINE=0",
			Settings{"https://huggingface.co", "/c", "a", "/u/.cache/huggingface/token", false}, "a", "",
		},
		{"HF_TOKEN_PATH=" + file, Settings{"https://huggingface.co", "/u/.cache/huggingface/hub", "", file, false}, "hf_file", ""},
		{
			"HF_TOKEN=a\x01b", Settings{"https://huggingface.co", "/u/.cache/huggingface/hub", "a\x01b", "/u/.cache/huggingface/token", false},
			"", "the token has characters that no token has; set HF_TOKEN to one from the hub's settings",
		},
	} {
		vars := map[string]string{"HOME": "/u"}
		for _, v := range strings.Fields(c.env) {
			name, value, _ := strings.Cut(v, "=")
			vars[name] = value
		}
		s := Environment(func(name string) string { return vars[name] })
		token, err := s.token()
		if s != c.want || token != c.token || err == nil != (c.fail == "") || err != nil && err.Error() != c.fail {
			t.Errorf("%q: %+v, token %q, %v", c.env, s, token, err)
		}
	}
	for _, bad := range []string{"huggingface.co", "ftp://x", "https://user:pass@x", "https://"} {
		if _, err := (Settings{Endpoint: bad}).endpoint(); err == nil || strings.Contains(err.Error(), "pass") {
			t.Errorf("endpoint %s: %v", bad, err)
		}
	}
}

func TestUseful(t *testing.T) {
	s := newServer(t, tinyModel())
	c := s.client("", nil)
	l, err := c.Useful(context.Background(), tiny)
	if err != nil || l.Commit != commitA || len(l.Files) != 3 || s.content() != 0 {
		t.Errorf("%+v %v", l, err)
	}
	if _, err := os.Stat(c.Cache); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a listing wrote into the cache: %v", err)
	}
	if !slices.ContainsFunc(l.Files, func(f File) bool { return f.Name == "model.safetensors" && f.Size == 300_000 }) {
		t.Errorf("%+v", l.Files)
	}
}
