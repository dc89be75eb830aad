package worker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"quartet/dataset"
	"quartet/eval"
	"quartet/model"
	"quartet/pipeline"
	"quartet/tokenizer"
	"quartet/worker/client"
)

// timingEvery is the least time between two timings of an answer that grows.
const timingEvery = 500 * time.Millisecond

// chat is one prompt being answered.
type chat struct {
	w         *worker
	workspace *pipeline.Workspace
	request   client.ChatRequest
	words     *tokenizer.Tokenizer
	ids       []int32 // of the prompt in its template
	tell      func(client.ChatEvent)
}

// answer lets the variants of a request answer and tells tell, on any goroutine, what they say. It waits for its turn among
// the prompts of all clients. The error is of the request as a whole.
func (w *worker) answer(ctx context.Context, r client.ChatRequest, tell func(client.ChatEvent)) error {
	workspace, err := w.open()
	if err != nil {
		return err
	}
	variants := workspace.Variants()
	for _, name := range r.Variants {
		if !slices.ContainsFunc(variants, func(v eval.Variant) bool { return v.Name == name }) {
			return fmt.Errorf("no variant %q; the variants are base, quantized, lora, lora_quantized", name)
		}
	}
	if len(r.Variants) > 0 {
		variants = slices.DeleteFunc(variants, func(v eval.Variant) bool { return !slices.Contains(r.Variants, v.Name) })
	}
	if r.Sampling == nil {
		s := workspace.Sampling()
		r.Sampling = &client.Sampling{
			Temperature: s.Temperature, TopK: s.TopK, TopP: s.TopP, RepetitionPenalty: s.RepetitionPenalty, Seed: s.Seed,
			MaxNewTokens: workspace.Config.Evaluation.MaxNewTokens,
		}
	}
	c := &chat{w: w, workspace: workspace, request: r, tell: tell}
	if err := c.encode(); err != nil {
		return err
	}
	for _, v := range variants {
		tell(client.ChatEvent{Variant: v.Name, State: "waiting"})
	}
	w.prompts.Lock()
	defer w.prompts.Unlock()
	if !r.Race {
		for _, v := range variants {
			c.one(ctx, v)
		}
		return nil
	}
	var all sync.WaitGroup
	for _, v := range variants {
		all.Go(func() { c.one(ctx, v) })
	}
	all.Wait()
	return nil
}

func (c *chat) encode() (err error) {
	c.w.device.turn.Lock()
	defer c.w.device.turn.Unlock()
	if c.words, err = c.w.library.tokenizer(c.workspace.Variants()[0].Weights); err != nil {
		return err
	}
	c.ids = c.words.Encode(c.workspace.Template().Render(dataset.Row{Instruction: c.request.Prompt}))
	return nil
}

// one lets one variant answer, and tells how it ended.
func (c *chat) one(ctx context.Context, v eval.Variant) {
	e := client.ChatEvent{Variant: v.Name, State: "done"}
	timing, err := c.generate(ctx, v)
	switch {
	case ctx.Err() != nil:
		e.State = "canceled"
	case err != nil:
		e.State, e.Reason = "failed", err.Error()
	}
	e.Timing = timing
	c.tell(e)
}

// generate gives a variant's answer piece by piece. Between two tokens others may have the device.
func (c *chat) generate(ctx context.Context, v eval.Variant) (*client.ChatTiming, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.tell(client.ChatEvent{Variant: v.Name, State: "loading"})
	turn := &c.w.device.turn
	turn.Lock()
	defer turn.Unlock()
	m, giveBack, err := c.w.library.borrow(c.workspace.Config.Device, v)
	if err != nil {
		return nil, err
	}
	defer giveBack()
	if _, err := m.Generate(ctx, [][]int32{c.ids[:1]}, model.GenerateOptions{MaxNew: 1}); err != nil { // warms it up
		return nil, err
	}
	memory, err := c.memory(m)
	if err != nil {
		return nil, err
	}
	s := c.request.Sampling
	t := &client.ChatTiming{PromptTokens: len(c.ids), MemoryBytes: memory, Shared: c.request.Race || c.w.running()}
	c.tell(client.ChatEvent{Variant: v.Name, State: "prefill"})
	stream := c.words.Stream(true)
	started := time.Now()
	var first, told time.Time
	o := model.GenerateOptions{
		MaxNew: s.MaxNewTokens, Allowed: c.words.Has,
		Sampling: model.Sampling{Temperature: s.Temperature, TopK: s.TopK, TopP: s.TopP, RepetitionPenalty: s.RepetitionPenalty, Seed: s.Seed},
		OnToken: func(_ int, id int32) bool {
			turn.Unlock()
			defer turn.Lock()
			now := time.Now()
			if t.Tokens++; t.Tokens == 1 {
				first, told = now, now
				t.TTFT = now.Sub(started).Seconds()
				t.Prefill = float64(len(c.ids)) / t.TTFT
			}
			e := client.ChatEvent{Variant: v.Name, State: "decoding", Text: stream.Push(id)}
			if now.Sub(told) >= timingEvery {
				told = now
				t.Decode = float64(t.Tokens-1) / now.Sub(first).Seconds()
				so := *t
				e.Timing = &so
			}
			c.tell(e)
			return true
		},
	}
	if m.Config.EOS >= 0 {
		o.Stop = []int32{m.Config.EOS}
	}
	done, err := m.Generate(ctx, [][]int32{c.ids}, o)
	if err != nil {
		return nil, err
	}
	if text := stream.Flush(); text != "" {
		c.tell(client.ChatEvent{Variant: v.Name, State: "decoding", Text: text})
	}
	got := done[0]
	t.Complete = got.Stopped
	if t.Tokens == 0 {
		t.TTFT = got.First.Seconds()
		t.Prefill = float64(len(c.ids)) / t.TTFT
	}
	steps := t.Tokens - 1
	if got.Stopped {
		steps++ // the one that gave end-of-text
	}
	if seconds := got.Decode.Seconds(); steps > 0 && seconds > 0 {
		t.Decode = float64(steps) / seconds
	}
	t.Shared = t.Shared || c.w.running()
	return t, nil
}

// memory is what a variant holds while it answers.
func (c *chat) memory(m *model.Model) (int64, error) {
	cache, err := m.NewCache(1, len(c.ids)+c.request.Sampling.MaxNewTokens)
	if err != nil {
		return 0, err
	}
	defer cache.Close()
	n := m.Weights.Bytes() + cache.Bytes()
	if m.Adapter != nil {
		n += m.Adapter.Bytes()
	}
	return n, nil
}

// running reports whether a run is at work.
func (w *worker) running() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cancel != nil
}
