package model_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
)

// scriptedBackend is a CPU backend with a decoding step of its own.
type scriptedBackend struct {
	*cpu.Backend
	step *scripted
}

func (b scriptedBackend) NewDecode(m kernels.DecodeModel) (kernels.Decode, error) {
	b.step.vocabulary = m.Head.Weight.Rows
	return b.step, nil
}

// scripted is a decoding step: after token n comes n+1. It notes what it was asked.
type scripted struct {
	vocabulary int
	asked      []string
	choice     kernels.Choice
}

func (s *scripted) Logits(logits []float32, token int32, first, position int) error {
	s.asked = append(s.asked, fmt.Sprintf("logits %d at %d+%d", token, first, position))
	clear(logits)
	logits[int(token+1)%s.vocabulary] = 1
	return nil
}

func (s *scripted) Choose(c kernels.Choice) error { s.choice = c; return nil }

func (s *scripted) Greedy(chosen []int32, token int32, first, position int) error {
	s.asked = append(s.asked, fmt.Sprintf("%d from %d at %d+%d", len(chosen), token, first, position))
	for i := range chosen {
		chosen[i] = token + 1 + int32(i)
	}
	return nil
}

func (s *scripted) Bytes() int64 { return 100 }
func (s *scripted) Free()        { s.asked = append(s.asked, "free") }

// TestRunAhead holds what a greedy answer is told and asks for against a device that chooses tokens itself.
func TestRunAhead(t *testing.T) {
	dir := t.TempDir()
	if err := modeltest.Write(dir, modeltest.Shape{Vocab: 97, Positions: 64}); err != nil {
		t.Fatal(err)
	}
	s := &scripted{}
	w, err := model.Load(scriptedBackend{cpu.New(), s}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	m := &model.Model{Weights: w}
	answer := func(o model.GenerateOptions) []int32 {
		t.Helper()
		s.asked = nil
		g, err := m.Generate(context.Background(), [][]int32{{5, 9, 4}}, o)
		if err != nil {
			t.Fatal(err)
		}
		return g[0].IDs
	}
	whole := answer(model.GenerateOptions{MaxNew: 37})
	first := whole[0] // by the model, from the prompt
	for i, id := range whole {
		if id != first+int32(i) {
			t.Fatalf("answer %v", whole)
		}
	}
	// The cache holds 3 + 37 tokens: the last piece is as long as there is room.
	want := []string{fmt.Sprintf("16 from %d at 0+3", first), fmt.Sprintf("16 from %d at 0+19", first+16), fmt.Sprintf("5 from %d at 0+35", first+32), "free"}
	if len(whole) != 37 || !slices.Equal(s.asked, want) {
		t.Errorf("%d tokens, asked for %q, want %q", len(whole), s.asked, want)
	}
	if s.choice.Allowed != nil || s.choice.Penalty != 1 {
		t.Errorf("chosen among %+v", s.choice)
	}

	if got := answer(model.GenerateOptions{MaxNew: 21, Stop: []int32{first + 4}}); !slices.Equal(got, whole[:4]) {
		t.Errorf("stopped by a token inside a piece: %v, want %v", got, whole[:4])
	}
	answer(model.GenerateOptions{
		MaxNew: 4, Sampling: model.Sampling{RepetitionPenalty: 1.5},
		Allowed: func(id int32) bool { return id == first || id == 33 },
	})
	in := func(set []uint32, id int32) bool { return set[id/32]>>(id%32)&1 == 1 }
	for id := range int32(97) {
		if in(s.choice.Allowed, id) != (id == first || id == 33) || in(s.choice.Seen, id) != slices.Contains([]int32{5, 9, 4, first}, id) {
			t.Errorf("token %d: allowed %t, seen %t", id, in(s.choice.Allowed, id), in(s.choice.Seen, id))
		}
	}
	if s.choice.Penalty != 1.5 {
		t.Errorf("penalty %v", s.choice.Penalty)
	}

	drawn := answer(model.GenerateOptions{MaxNew: 2, Sampling: model.Sampling{Temperature: 1}})
	if want := []string{fmt.Sprintf("logits %d at 0+3", drawn[0]), "free"}; !slices.Equal(s.asked, want) {
		t.Errorf("with a temperature it was asked for %q, want %q", s.asked, want)
	}
}

// TestDecodeStep extends a cache token by token: each by the step, at its place.
func TestDecodeStep(t *testing.T) {
	dir := t.TempDir()
	if err := modeltest.Write(dir, modeltest.Shape{Vocab: 97, Positions: 64}); err != nil {
		t.Fatal(err)
	}
	s := &scripted{}
	w, err := model.Load(scriptedBackend{cpu.New(), s}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c, err := (&model.Model{Weights: w}).NewCache(2, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, ids := range [][]int32{{1, 2}, {7}, {8}} {
		logits, err := c.Extend([]int{1}, [][]int32{ids})
		if err != nil {
			t.Fatal(err)
		}
		if last := ids[len(ids)-1]; len(ids) == 1 && logits[0][last+1] != 1 {
			t.Errorf("the logits after %d are not the step's", last)
		}
	}
	if want := []string{"logits 7 at 10+2", "logits 8 at 10+3"}; !slices.Equal(s.asked, want) || c.Len(1) != 4 {
		t.Errorf("asked for %q, want %q; %d tokens", s.asked, want, c.Len(1))
	}
	if _, err := c.Extend([]int{1}, [][]int32{{97}}); err == nil || err.Error() != "run the model: token id 97 is outside the vocabulary of 97" {
		t.Errorf("error %v", err)
	}
}
