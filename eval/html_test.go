package eval

import (
	"encoding/xml"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"quartet/visible"
)

// sampleRun is sample as a run with artefacts, and two former runs.
func sampleRun() (Run, []Run) {
	run := Run{ID: "20260102-030405.000000-abcdef", Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Results: sample()}
	run.Artefacts = []Artefact{
		{Name: "training rows", Seconds: Unknown, Digest: "d0", Files: []ArtefactFile{{"train.jsonl", 65_296, "d1"}}},
		{Name: "lora", Folder: "models/lora", Run: "r", Made: run.Started.Add(-time.Hour), Seconds: 7.9, Digest: "d2",
			Files: []ArtefactFile{{"adapter_config.json", 482, "d3"}, {"adapter_model.safetensors", 125_952, "d4"}}},
	}
	r := run.Results
	r.HeldOut.Examples = nil
	for _, category := range []string{"open_qa", "closed_qa", "open_qa"} {
		r.HeldOut.Examples = append(r.HeldOut.Examples, Example{Instruction: "Question?", Context: "Some context.", Reference: "A", Category: category, Variants: []Response{
			{Variant: "base", Answer: "\n\n\nB", NLLPerToken: 1, RougeL: 0.5}, {Variant: "quantized", Answer: "C", NLLPerToken: Unknown, RougeL: Unknown},
			{Variant: "lora", Answer: "A", NLLPerToken: 0.25, RougeL: 1, ExactMatch: true}}})
	}
	older := sample()
	older.Settings["learning_rate"] = 1e-3
	older.Training.Loss = Figures([]float64{7.2, 6, 5})
	older.Variants[2].ExactMatch = 0.5
	return run, []Run{{ID: "b", Results: older}, {ID: "a", Results: sample()}}
}

// voids are HTML's elements without an end.
var voids = append([]string{"wbr"}, xml.HTMLAutoClose...)

// walk reads a page as XML, which its elements and attributes must be but for HTML's void elements.
func walk(t *testing.T, page []byte, element func(xml.StartElement), end func(name string), text func(in, s string)) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(string(page)))
	d.Strict, d.AutoClose, d.Entity = false, voids, xml.HTMLEntity
	var open []string
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("the page is not well-formed: %v", err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			open = append(open, e.Name.Local)
			element(e)
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != e.Name.Local {
				t.Fatalf("</%s> ends %v", e.Name.Local, open)
			}
			open = open[:len(open)-1]
			end(e.Name.Local)
		case xml.CharData:
			in := ""
			if len(open) > 0 {
				in = open[len(open)-1]
			}
			text(in, string(e))
		}
	}
	if len(open) > 0 {
		t.Errorf("%v stay open", open)
	}
}

var (
	pathData  = regexp.MustCompile(`^[MLhvz0-9. -]*$`)
	allowed   = strings.Fields("html head meta title style body header p span h1 h2 h3 h4 ul li nav a main section div table thead tbody tr td th small figure figcaption b svg g line path rect dl dt dd article em wbr code details summary footer")
	styleAttr = regexp.MustCompile(`^(bottom|left): -?[0-9.]+%$`)
)

// checkPage holds a page against what every page must be: nothing of it runs, loads or hides.
func checkPage(t *testing.T, page []byte) map[string]int {
	t.Helper()
	count := map[string]int{}
	walk(t, page, func(e xml.StartElement) {
		count[e.Name.Local]++
		if !slices.Contains(allowed, e.Name.Local) {
			t.Errorf("the page has an element %s", e.Name.Local)
		}
		for _, a := range e.Attr {
			switch name := a.Name.Local; {
			case name == "href" && !strings.HasPrefix(a.Value, "#"), name == "d" && !pathData.MatchString(a.Value), name == "style" && !styleAttr.MatchString(a.Value),
				name == "src", name == "srcset", name == "action", name == "id" && e.Name.Local != "section", strings.HasPrefix(name, "on"):
				t.Errorf("<%s %s=%q>", e.Name.Local, name, a.Value)
			}
			if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
				t.Errorf("<%s %s=%q>", e.Name.Local, a.Name.Local, a.Value)
			}
		}
	}, func(string) {}, func(in, s string) {
		if in == "style" && (strings.Contains(s, "url(") || strings.Contains(s, "@import") || !strings.Contains(s, "prefers-color-scheme")) {
			t.Error("the style loads something or is not the page's")
		}
	})
	if text := string(page); visible.Text(text) != text || strings.Contains(text, "ZgotmplZ") {
		t.Error("the page holds characters that steer or hide, or a value that its place refuses")
	}
	return count
}

func html(t *testing.T, run Run, former []Run) []byte {
	t.Helper()
	page, err := run.HTML(former)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// outline is a page's text, a line for each row, heading, term or paragraph; the best of a row in asterisks.
func outline(t *testing.T, page []byte) string {
	var out strings.Builder
	blocks := strings.Fields("p li h1 h2 h3 h4 tr div figcaption summary article header footer a")
	var skip bool
	walk(t, page, func(e xml.StartElement) {
		skip = e.Name.Local == "style" || e.Name.Local == "title"
		for _, a := range e.Attr {
			if a.Name.Local == "d" {
				out.WriteString("<" + a.Value + "> ")
			}
			if a.Name.Local == "width" && e.Name.Local == "rect" {
				out.WriteString("|" + a.Value + "| ")
			}
		}
		if len(e.Name.Local) == 2 && e.Name.Local[0] == 'h' {
			out.WriteString(strings.Repeat("#", int(e.Name.Local[1]-'0')) + " ")
		}
	}, func(name string) {
		skip = false
		switch {
		case slices.Contains(blocks, name):
			out.WriteString("\n")
		case name == "td" || name == "th" || name == "dt" || name == "dd" || name == "span":
			out.WriteString(" ")
		}
	}, func(_, s string) {
		if !skip {
			out.WriteString(s)
		}
	})
	var lines []string
	for line := range strings.Lines(out.String()) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestPageText(t *testing.T) {
	run, former := sampleRun()
	page := html(t, run, former)
	checkPage(t, page)
	golden(t, "report.html.txt", outline(t, page))
}

func TestPageOfLittle(t *testing.T) {
	for name, r := range map[string]*Results{
		"nothing":     {},
		"one variant": {Variants: sample().Variants[:1]},
		"one step":    {Training: &Training{Loss: []Figure{1}, Seconds: Unknown}},
		"no finite loss": {Training: &Training{Loss: []Figure{Unknown, Unknown}, GradNorm: []Figure{Figure(math.Inf(1)), Unknown},
			LearningRate: []Figure{0, 0}}},
	} {
		t.Run(name, func(t *testing.T) { checkPage(t, html(t, Run{Results: r}, []Run{{Results: r}, {Results: sample()}})) })
	}
}

// fill puts a text in the place of every text of a run.
func fill(run Run, text string) Run {
	r := run.Results
	run.ID = text
	for i := range run.Artefacts {
		a := &run.Artefacts[i]
		a.Name, a.Folder, a.Run, a.Digest = text, text, text, text
		for n := range a.Files {
			a.Files[n].Name, a.Files[n].Digest = text, text
		}
	}
	for i := range r.Variants {
		v := &r.Variants[i]
		v.Name = text + v.Name
		if v.Missing != "" {
			v.Missing = text
		}
		for n := range v.Answers {
			v.Answers[n] = Answer{text, text}
		}
	}
	for i := range r.HeldOut.Examples {
		e := &r.HeldOut.Examples[i]
		e.Instruction, e.Context, e.Reference, e.Category = text, text, text, text+e.Category
		for n := range e.Variants {
			e.Variants[n].Variant, e.Variants[n].Answer = text+e.Variants[n].Variant, text
		}
	}
	r.Settings = map[string]any{"model": text, text + ".key": text, "list": []string{text}}
	r.Machine = Machine{Device: text, Processor: text, OS: text, Arch: text, Go: text}
	r.Warnings = []string{text}
	return run
}

func TestUntrustedTextStaysText(t *testing.T) {
	build := func(text string) []byte {
		run, former := sampleRun()
		for i := range former {
			former[i] = fill(former[i], text)
		}
		return html(t, fill(run, text), former)
	}
	want := checkPage(t, build("plain"))
	for name, text := range map[string]string{
		"script":     `</script><script>alert(1)</script><!--`,
		"end of all": `</title></style></svg></body></html>]]>`,
		"attributes": `" onload="alert(1)' style='x`,
		"link":       `<a href="https://example.org">x</a> javascript:alert(1) http://example.org`,
		"template":   "{{.}} ${x} `x`",
		"escapes":    "a\x1b[31m\x1b]0;x\x07\x00\u009b\x7f\r",
		"bidi":       "a\u202eb\u2066c\u200f\u200b\u2028",
		"not UTF-8":  "a\xff\xfe\xc3",
		"huge word":  strings.Repeat("W", 20_000),
		"huge text":  strings.Repeat("漢字 ", 20_000),
		"new lines":  "a\n\n\n\n\n\n\nb",
	} {
		t.Run(name, func(t *testing.T) {
			page := build(text)
			got := checkPage(t, page)
			for element, n := range want {
				if element != "wbr" && element != "em" && got[element] != n {
					t.Errorf("%d elements %s, not %d as with a plain word", got[element], element, n)
				}
			}
			if len(page) > 5<<20 {
				t.Errorf("the page has %d bytes", len(page))
			}
		})
	}
}

func TestFiguresOfAnySize(t *testing.T) {
	odd := []Figure{Figure(math.Inf(1)), Figure(math.Inf(-1)), Unknown, math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 0, -1, 1e300, -1e300, 1e-300}
	for i, f := range odd {
		r := sample()
		for n := range r.Variants {
			v := &r.Variants[n]
			v.DiskBytes, v.DecodeTokensPerSecond, v.NLLPerToken, v.LoadSeconds = math.MinInt64, f, odd[(i+n)%len(odd)], f
		}
		r.Training = &Training{Loss: append(slices.Clone(odd[i:]), 1), GradNorm: []Figure{f, f, 2}, LearningRate: []Figure{f}, Seconds: f}
		r.Settings["training.max_grad_norm"] = float64(odd[(i+3)%len(odd)])
		checkPage(t, html(t, Run{Results: r}, []Run{{Results: sample()}}))
	}
}

func TestCurvesOfLongTrainingsStaySmall(t *testing.T) {
	loss := make([]Figure, 1_000_000)
	for i := range loss {
		loss[i] = Figure(1 + math.Sin(float64(i)))
	}
	loss[777_777] = 50
	kept := thin(loss)
	if len(kept) > 2*chartWidth || !slices.Contains(kept, 777_777) || !slices.IsSorted(kept) {
		t.Errorf("%d of the points are kept, the peak among them: %v", len(kept), slices.Contains(kept, 777_777))
	}
}

func TestChart(t *testing.T) {
	for _, c := range []struct {
		values   []Figure
		fromZero bool
		path     string
		y        []tick
	}{
		{[]Figure{1, 2, 3}, false, "M0.0 300.0L500.0 150.0L1000.0 0.0", []tick{{"1", 0}, {"1.5", 25}, {"2", 50}, {"2.5", 75}, {"3", 100}}},
		{[]Figure{4, 2, Unknown, 0, 4}, true, "M0.0 0.0L250.0 150.0M750.0 300.0L1000.0 0.0", []tick{{"0", 0}, {"1", 25}, {"2", 50}, {"3", 75}, {"4", 100}}},
		{[]Figure{Unknown, 2, Figure(math.Inf(1)), 4}, true, "M333.3 150.0h0M1000.0 0.0h0", []tick{{"0", 0}, {"1", 25}, {"2", 50}, {"3", 75}, {"4", 100}}},
		{[]Figure{1, 1000}, false, "M0.0 300.0L1000.0 0.0", []tick{{"1", 0}, {"10", 100.0 / 3}, {"100", 200.0 / 3}, {"1000", 100}}},
		{[]Figure{2}, false, "M500.0 150.0h0", []tick{{"1", 0}, {"1.5", 25}, {"2", 50}, {"2.5", 75}, {"3", 100}}},
	} {
		var got chart
		got.draw([]series{{"raw", c.values}}, c.fromZero, Unknown)
		if len(got.Curves) != 1 || got.Curves[0].Path != c.path || !slices.Equal(got.Y, c.y) {
			t.Errorf("%v: %v, %v", c.values, got.Curves, got.Y)
		}
	}
	if got := stepTicks(200); !slices.Equal(got, []tick{{"1", 0}, {"50", 4900.0 / 199}, {"100", 9900.0 / 199}, {"150", 14900.0 / 199}, {"200", 100}}) {
		t.Errorf("steps: %v", got)
	}
}

func TestSmooth(t *testing.T) {
	got := smooth([]Figure{4, 1, Unknown, 1})
	// Over 5 steps a third of each is new: 4; (2/3·4/3 + 1/3)/(5/9); then the same once more.
	for i, want := range []float64{4, 11.0 / 5, math.NaN(), 31.0 / 19} {
		if got[i].Known() == math.IsNaN(want) || math.Abs(float64(got[i])-want) > 1e-12 {
			t.Errorf("step %d: %v, not %v", i+1, got[i], want)
		}
	}
}
