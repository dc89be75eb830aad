package dataset

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"quartet/tokenizer"
)

var template = Template{Prompt: "### Instruction:\n{instruction}\n\n{context}### Response:\n", Context: "### Context:\n{context}\n\n"}

func TestRender(t *testing.T) {
	for _, c := range []struct {
		row  Row
		want string
	}{
		{Row{Instruction: "Q?"}, "### Instruction:\nQ?\n\n### Response:\n"},
		{Row{Instruction: "Q?", Context: "C."}, "### Instruction:\nQ?\n\n### Context:\nC.\n\n### Response:\n"},
		{Row{Instruction: "{context}", Context: "{instruction}{context}"}, "### Instruction:\n{context}\n\n### Context:\n{instruction}{context}\n\n### Response:\n"},
	} {
		if got := template.Render(c.row); got != c.want {
			t.Errorf("%+v renders %q, not %q", c.row, got, c.want)
		}
	}
	if template.Validate() != nil || (Template{Prompt: "x"}).Validate() == nil || (Template{Prompt: "{instruction}{context}"}).Validate() == nil {
		t.Error("Validate is wrong about one of three templates")
	}
}

func TestReadRows(t *testing.T) {
	rows, err := readRows("x", strings.NewReader("\ufeff{\"instruction\":\"a\",\"response\":\"b\",\"Response\":\"other\",\"CATEGORY\":[1]}\n\n{\"instruction\":\"c\",\"context\":\"d\",\"response\":\"e\",\"category\":\"f\"}"))
	if want := []Row{{"a", "", "b", ""}, {"c", "d", "e", "f"}}; err != nil || !reflect.DeepEqual(rows, want) {
		t.Errorf("read %+v, %v", rows, err)
	}
	good := `{"instruction":"a","response":"b"}` + "\n"
	for text, want := range map[string]string{
		"":                                    "x holds no rows; it needs one JSON object a line with instruction and response",
		good + `{"instruction":"a"}`:          "x:2: response is missing or empty: there is nothing to learn from the row",
		good + "\n" + `{"response":"a"}`:      "x:3: instruction is missing or empty",
		`{"instruction":1,"response":"b"}`:    "x:1: instruction is a JSON number, not a string",
		"{\"instruction\":\"\xff\"}":          "x:1: the line is not valid UTF-8",
		`[1]`:                                 "x:1: the line is a JSON array, not an object",
		good + strings.Repeat("a", maxLine+1): "x:2: the line is longer than 16 MiB",
	} {
		if _, err := readRows("x", strings.NewReader(text)); err == nil || err.Error() != want {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
}

func TestSplitIsSeededAndDisjoint(t *testing.T) {
	var rows []Row
	for i := range 60 {
		rows = append(rows, Row{Instruction: fmt.Sprint(i % 50), Response: "r"})
	}
	train, held, err := Split(rows, 0, 10, 1)
	if err != nil || len(held) != 10 || len(train)+len(held) < 50 {
		t.Fatalf("%d to train on, %d held out, %v", len(train), len(held), err)
	}
	for _, h := range held {
		if slices.Contains(train, h) {
			t.Errorf("row %v is on both sides", h)
		}
	}
	for i := range rows {
		rows[i].Category = fmt.Sprint(i)
	}
	named, heldNamed, _ := Split(rows, 0, 10, 1)
	if len(named) != len(train) || len(heldNamed) != len(held) {
		t.Error("categories make copies of a row distinct")
	}
	for _, h := range heldNamed {
		if slices.ContainsFunc(named, func(r Row) bool { return r.Instruction == h.Instruction }) {
			t.Errorf("row %v is on both sides", h)
		}
	}
	for i := range rows {
		rows[i].Category = ""
	}
	again, _, _ := Split(rows, 0, 10, 1)
	other, _, _ := Split(rows, 0, 10, 2)
	if !reflect.DeepEqual(train, again) || reflect.DeepEqual(train, other) {
		t.Error("the seed does not determine the split")
	}
	if few, _, err := Split(rows, 7, 10, 1); err != nil || len(few) != 7 {
		t.Errorf("asked for 7 rows, got %d, %v", len(few), err)
	}
	want := "the dataset has 60 rows, 50 of them distinct: too few for 55 to train on and 10 held out; lower num_samples or held_out"
	if _, _, err := Split(rows, 55, 10, 1); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestLabelModes(t *testing.T) {
	tok, err := tokenizer.Load("../demo/tiny-phi")
	if err != nil {
		t.Fatal(err)
	}
	rows := []Row{{Instruction: "What is two plus six?", Response: "Two plus six is eight.<|endoftext|>"}}
	prompt := len(tok.Encode(template.Render(rows[0])))
	for mode, masked := range map[Labels]func(i int, id int32) bool{
		LabelsAll:      func(int, int32) bool { return false },
		LabelsSeed:     func(_ int, id int32) bool { return id == 0 },
		LabelsResponse: func(i int, _ int32) bool { return i < prompt },
	} {
		examples, stats, err := Encode(tok, template, rows, 0, Options{MaxLength: 64, Labels: mode})
		if err != nil {
			t.Fatal(err)
		}
		e := examples[0]
		trained := 0
		for i, id := range e.IDs {
			want := id
			if masked(i, id) {
				want = Masked
			}
			if e.Labels[i] != want {
				t.Errorf("%s: token %d of %d has label %d, not %d", mode, i, len(e.IDs), e.Labels[i], want)
			}
			if i > 0 && want != Masked {
				trained++
			}
		}
		if stats.Trained != trained || stats.Trained+stats.Masked != stats.Tokens || (stats.EOSTargets == 1) != (mode != LabelsSeed) || e.Prompt != prompt {
			t.Errorf("%s: figures %+v, want %d trained", mode, stats, trained)
		}
		var text strings.Builder
		for _, p := range Pieces(tok, e) {
			text.WriteString(p.Text)
		}
		if want := template.Render(rows[0]) + rows[0].Response + "<|endoftext|>"; text.String() != want {
			t.Errorf("%s: the pieces are %q", mode, text.String())
		}
	}
}

// TestTokenAcrossTheSeam: a token that is partly the response's is trained.
func TestTokenAcrossTheSeam(t *testing.T) {
	tok, err := tokenizer.Load("../demo/tiny-phi")
	if err != nil {
		t.Fatal(err)
	}
	open := Template{Prompt: "{instruction} Answer: "}
	r := Row{Instruction: "Who?", Response: "the king"}
	examples, _, err := Encode(tok, open, []Row{r}, 0, Options{MaxLength: 64, Labels: LabelsResponse})
	if err != nil {
		t.Fatal(err)
	}
	e := examples[0]
	if across := tok.Token(e.IDs[e.Prompt]); !strings.HasPrefix(across, " t") {
		t.Fatalf("the token after the prompt is %q", across)
	}
	var trained []int32
	for i, l := range e.Labels {
		if l != Masked {
			trained = append(trained, e.IDs[i])
		}
	}
	if got := tok.Decode(trained, true); got != " the king" {
		t.Errorf("trained is %q", got)
	}
}

func TestTruncation(t *testing.T) {
	tok, err := tokenizer.Load("../demo/tiny-phi")
	if err != nil {
		t.Fatal(err)
	}
	rows := []Row{{Instruction: "Hi", Response: "Ho"}, {Instruction: "What is the capital of France?", Response: "The capital of France is Paris."}}
	examples, stats, err := Encode(tok, template, rows, 0, Options{MaxLength: 24, Truncate: true, Labels: LabelsAll})
	if err != nil {
		t.Fatal(err)
	}
	if len(examples[1].IDs) != 24 || !examples[1].Truncated || examples[0].Truncated || stats.Truncated != 1 || stats.EOSTargets != 1 {
		t.Errorf("%d ids, figures %+v", len(examples[1].IDs), stats)
	}
	if got, want := stats.PaddingShare, 1-float64(stats.Tokens)/48; got != want {
		t.Errorf("padding share %g, not %g", got, want)
	}
	_, _, err = Encode(tok, template, rows, 0, Options{MaxLength: 24, Labels: LabelsAll})
	if err == nil || !strings.HasPrefix(err.Error(), `row 2 ("What is the capital of France?") has `) {
		t.Errorf("without truncation: %v", err)
	}
}

func FuzzReadRows(f *testing.F) {
	f.Add([]byte(`{"instruction":"a","response":"b"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := readRows("x", strings.NewReader(string(data)))
		if err == nil && len(rows) == 0 {
			t.Error("no rows and no error")
		}
	})
}
