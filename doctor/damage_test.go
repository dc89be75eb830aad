package doctor

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDamagedFoldersAreExamined changes bytes of headers and settings of folders of each kind. Whatever they then hold, the
// report names it in lines that are safe to print.
func TestDamagedFoldersAreExamined(t *testing.T) {
	m := made(t)
	r := rand.New(rand.NewPCG(5, 6))
	for path, times := range map[string]int{
		filepath.Join(m.base, configName): 60, filepath.Join(m.base, singleName): 60, filepath.Join(m.base, "tokenizer.json"): 10,
		filepath.Join(m.four, configName): 60, filepath.Join(m.four, singleName): 60,
		filepath.Join(m.adapter, adapterConfigName): 150, filepath.Join(m.adapter, adapterModelName): 150,
	} {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		reach := min(len(whole), 12<<10) // where headers are
		for range times {
			data := append([]byte(nil), whole...)
			for range 1 + r.IntN(4) {
				data[r.IntN(reach)] = byte(r.IntN(256))
			}
			if err := os.WriteFile(path, data, 0o666); err != nil {
				t.Fatal(err)
			}
			report, err := Examine(context.Background(), filepath.Dir(path), Options{Base: m.base, Deep: true})
			if err != nil {
				t.Fatal(err)
			}
			if text := report.Text(); strings.ContainsFunc(text, func(c rune) bool { return c < ' ' && c != '\n' }) || strings.Count(text, "\n") != 3+len(report.Findings) {
				t.Fatalf("%q", text)
			}
		}
		if err := os.WriteFile(path, whole, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	empty := filepath.Join(m.base, singleName)
	if err := os.WriteFile(empty, []byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	compare(t, m.base, Options{Deep: true}, "transformers -, quartet -", []string{
		"warning model.safetensors: its header has no metadata", "error : tensors are missing"})
}
