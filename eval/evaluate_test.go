package eval

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quartet/dataset"
	"quartet/demo"
	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
	"quartet/tokenizer"
)

// world is two small random models of one shape, named base and other, and rows to evaluate them on.
type world struct {
	backend  kernels.Backend
	variants []Variant
	data     Data
}

func newWorld(t *testing.T) world {
	t.Helper()
	dir := t.TempDir()
	if err := demo.WriteModel(filepath.Join(dir, "tokenizer")); err != nil {
		t.Fatal(err)
	}
	words, err := tokenizer.Load(filepath.Join(dir, "tokenizer"))
	if err != nil {
		t.Fatal(err)
	}
	w := world{backend: cpu.New(), data: Data{
		Tokenizer: words,
		Template:  dataset.Template{Prompt: "Q: {instruction}\n{context}A: ", Context: "({context})\n"},
		HeldOut: []dataset.Row{
			{Instruction: "What is a bear?", Response: "A bear is a mammal."},
			{Instruction: "Where is the cup?", Context: "Grace left the cup in the barn.", Response: "The cup is in the barn."},
			{Instruction: "What is two plus six?", Response: "eight"},
		},
		Prompts: []string{"Where does Max live?", "What is a duck?"},
	}}
	for i, name := range []string{"other", Base} {
		folder := filepath.Join(dir, name)
		if err := modeltest.Write(folder, modeltest.Shape{Vocab: 2048, Positions: 96, Seed: uint64(i + 1)}); err != nil {
			t.Fatal(err)
		}
		w.variants = append(w.variants, Variant{Name: name, Weights: folder})
	}
	return w
}

func (w world) evaluate(t *testing.T, h Hooks) *Results {
	t.Helper()
	r, err := Evaluate(context.Background(), w.backend, w.variants, w.data, Options{MaxNew: 6, Batch: 2}, h)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// logProbs are the float64 log-probabilities at each token of a row, of the next one, by one unpacked run.
func (w world) logProbs(t *testing.T, v Variant, ids []int32) [][]float64 {
	t.Helper()
	weights, err := model.Load(w.backend, v.Weights)
	if err != nil {
		t.Fatal(err)
	}
	defer weights.Close()
	pass, err := (&model.Model{Weights: weights}).NewPass(len(ids), model.PassOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer pass.Close()
	var want []int32
	for i := range ids {
		want = append(want, int32(i))
	}
	var out [][]float64
	err = pass.Logits(model.Pack(ids), want, func(_ int, logits []float32) {
		row := make([]float64, len(logits))
		var sum float64
		for i, l := range logits {
			row[i] = float64(l)
			sum += math.Exp(row[i])
		}
		for i := range row {
			row[i] -= math.Log(sum)
		}
		out = append(out, row)
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func near(a Figure, b, tolerance float64) bool {
	return math.Abs(float64(a)-b) <= tolerance*math.Max(1, math.Abs(b))
}

func TestLikelihoodAndDivergenceAgreeWithBruteForce(t *testing.T) {
	w := newWorld(t)
	r := w.evaluate(t, Hooks{})
	const eos = 0
	nll, kl, tokens := map[string]float64{}, 0.0, 0
	for n, row := range w.data.HeldOut {
		prompt := w.data.Template.Render(row)
		ids := append(w.data.Tokenizer.Encode(prompt+row.Response), eos)
		from := dataset.PromptTokens(w.data.Tokenizer.Encode(prompt), ids)
		p := map[string][][]float64{}
		for i, v := range w.variants {
			p[v.Name] = w.logProbs(t, v, ids)
			var sum float64
			for at := from; at < len(ids); at++ {
				sum -= p[v.Name][at-1][ids[at]]
			}
			nll[v.Name] += sum
			if got := r.HeldOut.Examples[n].Variants[i].NLLPerToken; !near(got, sum/float64(len(ids)-from), 1e-5) {
				t.Errorf("row %d of %s: loss %v, not %v", n, v.Name, got, sum/float64(len(ids)-from))
			}
		}
		for at := from; at < len(ids); at++ {
			for i, base := range p[Base][at-1] {
				kl += math.Exp(base) * (base - p["other"][at-1][i])
			}
		}
		tokens += len(ids) - from
	}
	if r.HeldOut.ResponseTokens != tokens {
		t.Errorf("%d tokens, not %d", r.HeldOut.ResponseTokens, tokens)
	}
	for name, sum := range nll {
		mean := sum / float64(tokens)
		if v := r.Variant(name); !near(v.NLLPerToken, mean, 1e-5) || !near(v.Perplexity, math.Exp(mean), 1e-4) {
			t.Errorf("%s: loss %v and perplexity %v, not %v and %v", name, v.NLLPerToken, v.Perplexity, mean, math.Exp(mean))
		}
	}
	if got := r.Variant("other").KLToBase; !near(got, kl/float64(tokens), 1e-5) || got < 1e-3 {
		t.Errorf("divergence %v, not %v", got, kl/float64(tokens))
	}
	if got := r.Variant(Base).KLToBase; got != 0 {
		t.Errorf("base diverges from itself by %v", got)
	}
}

func TestEvaluationIsWhole(t *testing.T) {
	w := newWorld(t)
	phases, last := map[string]bool{}, Progress{}
	r := w.evaluate(t, Hooks{OnProgress: func(p Progress) {
		phases[p.Phase] = true
		if p.Done > p.Total || p.Phase == last.Phase && p.Variant == last.Variant && p.Done < last.Done {
			t.Errorf("progress %+v after %+v", p, last)
		}
		last = p
	}})
	for _, phase := range []string{"load", "speed", "likelihood", "answers"} {
		if !phases[phase] {
			t.Errorf("no progress of phase %q", phase)
		}
	}
	if last.Done != last.Total {
		t.Errorf("the last progress is %+v", last)
	}
	for _, v := range r.Variants {
		for name, f := range map[string]Figure{"load": v.LoadSeconds, "first token": v.TTFTSeconds, "prefill": v.PrefillTokensPerSecond, "decode": v.DecodeTokensPerSecond} {
			if !f.Known() || f <= 0 {
				t.Errorf("%s of %s is %v", name, v.Name, f)
			}
		}
		if v.DiskBytes <= 0 || v.ResidentBytes <= 0 || v.AdapterBytes != 0 {
			t.Errorf("the sizes of %s are %d, %d and %d", v.Name, v.DiskBytes, v.ResidentBytes, v.AdapterBytes)
		}
		if len(v.Answers) != 2 || v.Answers[1].Prompt != "What is a duck?" || v.Answers[1].Answer == "" {
			t.Errorf("the answers of %s are %q", v.Name, v.Answers)
		}
	}
	if len(r.Warnings) > 0 {
		t.Errorf("warnings: %q", r.Warnings)
	}
}

// TestDisturbedTimingsAreLabelled lets others have the device before each layer, or in the first run alone.
func TestDisturbedTimingsAreLabelled(t *testing.T) {
	w := newWorld(t)
	others := 0
	r := w.evaluate(t, Hooks{Others: func() int { others++; return others }})
	for _, v := range r.Variants {
		if !v.SharedDevice {
			t.Errorf("%s does not say that its timings were disturbed", v.Name)
		}
	}
	table := r.Table(120, false)
	for _, text := range []string{table, Run{Results: r}.Report()} {
		if !strings.Contains(text, "shared the device") {
			t.Errorf("the timings are not labelled:\n%s", text)
		}
	}
	if _, row, _ := strings.Cut(table, "decode tok/s"); strings.Contains(strings.SplitN(row, "\n", 2)[0], "*") {
		t.Errorf("disturbed timings have a best:\n%s", table)
	}
	others = 0
	r = w.evaluate(t, Hooks{Others: func() int { others++; return min(others, 9) }})
	for _, v := range r.Variants {
		if v.SharedDevice {
			t.Errorf("%s: undisturbed runs were there", v.Name)
		}
	}
}

// The answers must not depend on what is answered beside them.
func TestBatchedAnswersAreThoseOfOneAtATime(t *testing.T) {
	w := newWorld(t)
	var answers [2][]string
	for i, batch := range []int{1, 3} {
		r, err := Evaluate(context.Background(), w.backend, w.variants[:1], w.data, Options{MaxNew: 8, Batch: batch, SkipSpeed: true}, Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range r.HeldOut.Examples {
			answers[i] = append(answers[i], e.Variants[0].Answer)
		}
		if r.Variants[0].KLToBase.Known() || r.Variants[0].TTFTSeconds.Known() {
			t.Error("divergence without a base, or speed although it was left out, is known")
		}
	}
	if !slices.Equal(answers[0], answers[1]) {
		t.Errorf("one at a time %q, batched %q", answers[0], answers[1])
	}
}

func TestMissingVariantsAreReported(t *testing.T) {
	w := newWorld(t)
	w.variants = append(w.variants, Variant{Name: "lora", Weights: w.variants[0].Weights, Adapter: filepath.Join(t.TempDir(), "none")})
	r := w.evaluate(t, Hooks{})
	v := r.Variant("lora")
	if !strings.Contains(v.Missing, "none is not there") || v.NLLPerToken.Known() {
		t.Errorf("the missing variant is %+v", v)
	}
	if len(r.Warnings) != 1 || len(r.HeldOut.Examples[0].Variants) != 2 {
		t.Errorf("warnings %q, variants of a row %v", r.Warnings, r.HeldOut.Examples[0].Variants)
	}
}

func TestLongRowsAreLeftOutWithAWarning(t *testing.T) {
	w := newWorld(t)
	w.data.HeldOut = append(w.data.HeldOut, dataset.Row{Instruction: strings.Repeat("bear ", 100), Response: "x"})
	w.data.Prompts = append(w.data.Prompts, strings.Repeat("bear ", 100))
	var warnings []string
	r := w.evaluate(t, Hooks{OnWarning: func(text string) { warnings = append(warnings, text) }})
	if r.HeldOut.Rows != 3 || len(r.Variants[0].Answers) != 2 {
		t.Errorf("%d rows and %d answers", r.HeldOut.Rows, len(r.Variants[0].Answers))
	}
	if len(warnings) != 2 || !strings.Contains(warnings[0], "held-out row 4") || !strings.Contains(warnings[1], "test prompt 3") {
		t.Errorf("warnings %q", warnings)
	}
}

func TestEvaluationEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	for _, phase := range []string{"load", "speed", "likelihood", "answers"} {
		ctx, cancel := context.WithCancel(context.Background())
		_, err := Evaluate(ctx, w.backend, w.variants, w.data, Options{MaxNew: 6, Batch: 2}, Hooks{OnProgress: func(p Progress) {
			if p.Phase == phase {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at %s, the evaluation ends with %v", phase, err)
		}
	}
}

func TestCompareStreamsWhatItReturns(t *testing.T) {
	w := newWorld(t)
	streamed := map[string]string{}
	done := 0
	o := CompareOptions{Tokenizer: w.data.Tokenizer, Template: w.data.Template, MaxNew: 12}
	all, err := Compare(context.Background(), w.backend, w.variants, w.data.Prompts, o, CompareHooks{
		OnText: func(prompt int, variant, text string) { streamed[w.data.Prompts[prompt]+variant] += text },
		OnDone: func(int, Answered) { done++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || done != 4 {
		t.Fatalf("%d comparisons and %d answers", len(all), done)
	}
	for _, c := range all {
		for _, a := range c.Answers {
			if streamed[c.Prompt+a.Variant] != a.Answer {
				t.Errorf("%s streamed %q and returned %q", a.Variant, streamed[c.Prompt+a.Variant], a.Answer)
			}
			if !a.TTFTSeconds.Known() || !a.DecodeTokensPerSecond.Known() || a.Tokens == 0 {
				t.Errorf("timings %+v", a)
			}
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 100}, 3}} {
		if got := median(c.values); got != c.want {
			t.Errorf("the median of %v is %v, not %v", c.values, got, c.want)
		}
	}
}
