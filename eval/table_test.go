package eval

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// golden compares a text with testdata/NAME; QUARTET_UPDATE=1 writes it instead.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("QUARTET_UPDATE") != "" {
		if err := os.MkdirAll("testdata", 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; is:\n%s\nshould be:\n%s", name, got, want)
	}
}

func TestTableText(t *testing.T) {
	golden(t, "table80.txt", sample().Table(80, false))
	golden(t, "table40.txt", sample().Table(40, false))
}

func TestReportText(t *testing.T) {
	run, _ := sampleRun()
	golden(t, "report.md", run.Report())
}

func TestTableKeepsItsWidth(t *testing.T) {
	r := sample()
	for i := range r.Variants {
		r.Variants[i].Missing = ""
		r.Variants[i].DiskBytes, r.Variants[i].ResidentBytes = 5_559_367_680, 999_500_000
		r.Variants[i].Perplexity = 123456.789
	}
	for _, width := range []int{80, 100, 200} {
		for l := range strings.Lines(r.Table(width, false)) {
			if n := columns(strings.TrimRight(l, "\n")); n > width {
				t.Errorf("at %d columns a line takes %d: %q", width, n, l)
			}
		}
	}
	for _, width := range []int{-1, 0, 1, 10} {
		_ = r.Table(width, true)
	}
	if (&Results{}).Table(80, false) == "" {
		t.Error("a table without variants has no rows")
	}
}

func TestTableColorsOnlyTheBest(t *testing.T) {
	text := sample().Table(80, true)
	plain := strings.NewReplacer("\x1b[1;32m", "", "\x1b[0m", "").Replace(text)
	if plain != sample().Table(80, false) {
		t.Errorf("but for its colors the table differs:\n%s", plain)
	}
	if n := strings.Count(plain, " *"); n == 0 || strings.Count(text, "\x1b[1;32m") != n {
		t.Errorf("%d figures are marked, and others colored:\n%q", n, text)
	}
}

func TestEqualFiguresAreNotMarked(t *testing.T) {
	r := sample()
	for i := range r.Variants {
		r.Variants[i].ExactMatch = 0
	}
	for l := range strings.Lines(r.Table(80, false)) {
		if strings.HasPrefix(l, "exact match") && strings.Contains(l, "*") {
			t.Errorf("a figure is best although all are equal: %s", l)
		}
	}
}

func TestHostileTextStaysText(t *testing.T) {
	const evil = "\x1b]0;owned\x07\x1b[2J<script>alert(1)</script> ![x](http://e/x) |\u202e @everyone\r"
	r := sample()
	r.Variants[0].Name, r.Variants[3].Missing = evil, evil
	r.Variants[1].Answers = []Answer{{evil, evil}}
	r.Settings[evil] = evil
	r.Warnings = []string{evil}
	r.Machine.Processor = evil
	r.HeldOut.Examples = []Example{{Instruction: evil, Context: evil, Reference: evil, Category: evil, Variants: []Response{{Variant: evil, Answer: evil}}}, {}}
	evilRun := Run{ID: evil, Started: time.Unix(0, 0), Results: r, Artefacts: []Artefact{{Name: evil, Files: []ArtefactFile{{evil, 1, evil}}}}}
	comparison := Comparison{Prompt: evil, Answers: []Answered{{Variant: evil, Answer: evil + strings.Repeat("x", 300)}, {Variant: "b", Missing: evil}}}
	for name, text := range map[string]string{"table": r.Table(80, false), "narrow table": r.Table(30, false), "report": evilRun.Report(),
		"comparison": comparison.Text(100, false), "narrow comparison": comparison.Text(30, false)} {
		if strings.ContainsAny(text, "\x1b\x07\r\u202e") {
			t.Errorf("%s holds a control character: %q", name, text)
		}
	}
	if report := evilRun.Report(); strings.Contains(report, "<script>") || strings.Contains(report, "![x](") || strings.Contains(report, "@everyone") {
		t.Errorf("the report holds markup of the model's:\n%s", report)
	}
}

func TestUnits(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.00 kB", 5_115_329: "5.12 MB", 999_499_999: "999 MB",
		999_500_000: "1.00 GB", 5_559_367_680: "5.56 GB", 45_000_000_000_000: "45.0 TB", 9_000_000_000_000_000: "9000 TB"} {
		if got := formatBytes(n); got != want {
			t.Errorf("%d bytes read %q, not %q", n, got, want)
		}
	}
	for f, want := range map[Figure]string{0.0000042: "4.20 µs", 0.0123: "12.3 ms", 0.9996: "1.00 s", 312.4: "312 s"} {
		if got := formatSeconds(f); got != want {
			t.Errorf("%v seconds read %q, not %q", f, got, want)
		}
	}
}

func TestSparkline(t *testing.T) {
	for _, c := range []struct {
		values []float64
		width  int
		want   string
	}{
		{[]float64{7, 6, 5, 4, 3, 2, 1, 0}, 20, "█▇▆▅▄▃▂▁"},
		{[]float64{8, 6, 1, -1}, 2, "█▁"},
		{[]float64{3, 3, 3}, 5, "▁▁▁"},
		{nil, 5, ""},
	} {
		if got := Sparkline(Figures(c.values), c.width); got != c.want {
			t.Errorf("Sparkline(%v, %d) = %q, not %q", c.values, c.width, got, c.want)
		}
	}
	if got := Sparkline([]Figure{0, Unknown, 1}, 9); got != "▁ █" {
		t.Errorf("an unknown figure reads %q", got)
	}
}
