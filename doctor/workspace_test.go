package doctor

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quartet/demo"
)

func TestAWorkspaceWithWhatAKilledRunLeft(t *testing.T) {
	dir := t.TempDir()
	if err := demo.WriteWorkspace(dir); err != nil {
		t.Fatal(err)
	}
	m := made(t)
	for _, sub := range []string{"models/.phi-tiny-lora.quartet-run7", ".quartet/pending", "models/phi-tiny-lora.kept-run3"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(m.base, filepath.Join(dir, "models/phi-tiny-base")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "models/.phi-tiny-lora.quartet-run7/half", "half")
	write(t, dir, ".quartet/pending/quantize.json", "{}")
	write(t, dir, ".quartet/lock", `{"host":"gpu7","pid":4711,"run":"run7"}`)
	remove(t, filepath.Join(dir, "models/phi-tiny-base"), singleName)
	r, err := Examine(context.Background(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	lines := found(r)
	for i, want := range []string{
		"warning .quartet/lock: process 4711 on gpu7, since ",
		"warning .quartet/pending/quantize.json: a crash cut the move of quantize into its place short",
		"warning models/.phi-tiny-lora.quartet-run7: left by a run that was killed, 4 B",
		"note models/phi-tiny-lora.kept-run3: kept because the program had not made it",
		"note base: stale: ",
	} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Fatalf("found %q, want %q", lines, want)
		}
	}
	if len(r.Parts) != 3 || r.Parts[0].Kind != Model || r.Parts[1].Kind != Dataset || r.Parts[2].Kind != Dataset {
		t.Fatalf("parts %+v", r.Parts)
	}
	if got := found(r.Parts[0]); len(got) != 1 || !strings.HasPrefix(got[0], "error : no weights") || r.Count(Error) != 1 {
		t.Errorf("base %q", got)
	}
	if !strings.Contains(r.Text(), dir+"/models/phi-tiny-base: model\n  loads in: transformers NO, quartet NO\n  error    no weights") ||
		!strings.HasSuffix(r.Text(), "\n1 error, 3 warnings\n") {
		t.Errorf("text\n%s", r.Text())
	}
	var back Report
	if text, err := json.Marshal(r); err != nil || json.Unmarshal(text, &back) != nil || back.Count(Warning) != 3 || back.Parts[0].Verdicts[0].Loads {
		t.Errorf("JSON %s, %v", text, err)
	}
}

func TestAWorkspaceWithAMistake(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "config.toml", "seed = 1\n[lora]\nr = -1\n")
	compare(t, dir, Options{}, "", []string{"error config.toml:3: "})
}

func TestHostileNamesAreShownSafely(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a\x1b[2J\nb.txt", "")
	r, err := Examine(context.Background(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if text := r.Text(); strings.Contains(text, "\x1b") || strings.Count(text, "\n") != 3 {
		t.Errorf("%q", text)
	}
}
