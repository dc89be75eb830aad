package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"quartet/dataset"
	"quartet/kernels"
	"quartet/model"
	"quartet/train"
)

// limits bound the work of a row.
type limits struct {
	runs   int           // enough of them, once they have taken least
	least  time.Duration // of all runs of a row together
	most   time.Duration // after which no further run starts
	buffer int           // bytes of the largest buffer that bandwidth is read from
	bursts int           // of which a roof is the best
}

// full are the limits of a benchmark that is worth something. 1 GiB is far beyond any cache.
var full = limits{runs: 7, least: 2 * time.Second, most: 20 * time.Second, buffer: 1 << 30, bursts: 200}

// enough reports whether a row has seen enough runs, of so many seconds each.
func (l limits) enough(seconds []float64) bool {
	var spent float64
	for _, s := range seconds {
		spent += s
	}
	return len(seconds) > 0 && spent >= l.most.Seconds() || len(seconds) >= l.runs && spent >= l.least.Seconds()
}

// The work of the rows.
const (
	promptTokens = 32  // before decoding
	newTokens    = 100 // decoded in a run, or as many as the floor lets a machine do in decodeTime, but fewTokens at least
	fewTokens    = 8
	decodeTime   = 4 // seconds
	stepTime     = 4 // seconds: the largest training step that the floor allows to take no longer is the one measured
	rank         = 8
)

// stepShapes are the training steps in falling size: rows, and tokens of each. A GPU is also measured at largeStep.
var (
	stepShapes = [][2]int{{4, 256}, {1, 256}, {1, 128}, {1, 64}, {1, 32}}
	largeStep  = [][2]int{{16, 256}}
)

// kind is a kind of row: its work in words and numbers, and what runs it until the limits.
type kind struct {
	name    func(dtype string) string
	measure func(s *session, m *model.Model, roof Roof) (work Work, words string, seconds []float64, err error)
}

// kindsOf are the kinds of rows of a backend in the order in which they are reported.
func kindsOf(b kernels.Backend) []kind {
	named := func(name string) func(string) string { return func(dtype string) string { return name + "_" + dtype } }
	trained := func(name string) func(string) string {
		return func(dtype string) string {
			if dtype == "nf4" {
				return "q" + name
			}
			return name
		}
	}
	kinds := []kind{
		{named("decode"), (*session).decode}, {named("prefill64"), prefillOf(64)}, {named("prefill512"), prefillOf(512)}, {trained("lora_step"), stepOf(stepShapes)},
	}
	if _, ok := b.(gpu); ok {
		kinds = append(kinds, kind{named("prefill1024"), prefillOf(1024)}, kind{trained("lora_step16"), stepOf(largeStep)})
	}
	return kinds
}

// session is a benchmark under way.
type session struct {
	ctx    context.Context
	b      kernels.Backend
	hooks  Hooks
	limits limits
	report *Report

	measured []measured
}

// measured is a row before its floor is known.
type measured struct {
	name, words string
	kind        int // its place in kindsOf
	weights     int64
	work        Work
	seconds     []float64 // of each run
	bandwidth   float64   // of a buffer as large as the weights; 0 for that of memory
	device      int64     // bytes of a GPU's memory at the peak
	got         float64   // the share of its threads' time that the program got
}

// roofs measures the machine's roofs. They are measured before the rows and after, since another program's work may hide
// one for a while: the best counts.
func (s *session) roofs() error {
	s.hooks.Note("measuring the machine's bandwidth and product rate")
	m := &s.report.Machine
	if g, ok := s.b.(gpu); ok {
		return gpuRoofs(g, m, s.limits)
	}
	m.ReadBytesPerSecond = max(m.ReadBytesPerSecond, bandwidth(s.limits.buffer, s.limits.bursts))
	registers, from := multiplyAdds(m.Path, s.limits.bursts)
	m.RegisterFlops, m.FlopsFrom = max(m.RegisterFlops, registers), from
	product, err := productRate(s.b, s.limits.bursts)
	m.ProductFlops = max(m.ProductFlops, product)
	return err
}

// measure adds the rows of the model in a folder to the report.
func (s *session) measure(folder string) error {
	w, err := model.Load(s.b, folder)
	if err != nil {
		return err
	}
	defer w.Close()
	dtype := "nf4"
	if !w.Config.Quantized {
		dtype = map[kernels.DType]string{kernels.F16: "fp16", kernels.BF16: "bf16", kernels.F32: "fp32"}[w.DType()]
	}
	m := &model.Model{Weights: w}
	var own float64
	size := int(extentOf(m).bytes)
	ownBandwidth := func() {
		if _, ok := s.b.(gpu); !ok && size < s.limits.buffer {
			own = max(own, bandwidth(size, s.limits.bursts))
		}
	}
	ownBandwidth()
	first := len(s.measured)
	kinds := kindsOf(s.b)
	for i, k := range kinds {
		name := k.name(dtype)
		s.hooks.Progress(name, int64(i), int64(len(kinds)), "rows")
		device := watchMemory(s.b)
		started, used := time.Now(), processorTime()
		work, words, seconds, err := k.measure(s, m, s.report.Machine.roof(own))
		got := (processorTime() - used).Seconds() / time.Since(started).Seconds() / float64(s.report.Machine.Threads)
		switch {
		case s.ctx.Err() != nil:
			return s.ctx.Err()
		case err != nil:
			s.report.LeftOut = append(s.report.LeftOut, LeftOut{name, err.Error()})
		default:
			s.measured = append(s.measured, measured{name: name, words: words, kind: i, weights: w.Bytes(), work: work, seconds: seconds, got: got, device: device()})
			s.hooks.Note(fmt.Sprintf("%-16s %s tokens/s, %s", name, digits(float64(work.Tokens)/quantile(seconds, 0.5)), words))
		}
	}
	ownBandwidth()
	for i := range s.measured[first:] {
		s.measured[first+i].bandwidth = own
	}
	return nil
}

// processorTime is what all threads of the program have computed so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// row is the row with its floor on a machine.
func (m measured) row(on Machine) Row {
	roof := on.roof(m.bandwidth)
	floor, half := m.work.Seconds(roof)
	tokens := float64(m.work.Tokens)
	middle := quantile(m.seconds, 0.5)
	return Row{
		Name: m.name, Work: m.words, TokensPerSecond: tokens / middle, Floor: tokens / floor, FloorFrom: half, Share: floor / middle,
		Runs: len(m.seconds), Spread: [2]float64{tokens / quantile(m.seconds, 0.75), tokens / quantile(m.seconds, 0.25)}, Seconds: middle,
		BytesPerToken: m.work.Bytes / tokens, FlopsPerToken: m.work.Flops / tokens, WeightsBytes: m.weights, Roof: roof, Got: m.got, DeviceBytes: m.device,
	}
}

// quantile is the value below which a share of the values lies, between two of them by their distance.
func quantile(values []float64, share float64) float64 {
	v := slices.Sorted(slices.Values(values))
	at := share * float64(len(v)-1)
	below := int(at)
	if below == len(v)-1 {
		return v[below]
	}
	return v[below] + (at-float64(below))*(v[below+1]-v[below])
}

// random is n token ids of a vocabulary, the same every time.
func random(c model.Config, n int) []int32 {
	draw := rand.New(rand.NewPCG(1, uint64(n)))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = draw.Int32N(int32(c.VocabSize))
	}
	return ids
}

// prefillOf measures reading a prompt of n tokens.
func prefillOf(n int) func(s *session, m *model.Model, roof Roof) (Work, string, []float64, error) {
	return func(s *session, m *model.Model, roof Roof) (Work, string, []float64, error) {
		work := extentOf(m).prefill(n)
		cache, err := m.NewCache(1, n)
		if err != nil {
			return work, "", nil, err
		}
		defer cache.Close()
		ids := random(m.Config, n)
		if _, err := cache.Extend([]int{0}, [][]int32{ids[:n/4]}); err != nil { // warms up
			return work, "", nil, err
		}
		var seconds []float64
		for !s.limits.enough(seconds) && s.ctx.Err() == nil {
			cache.Reset(0)
			started := time.Now()
			if _, err := cache.Extend([]int{0}, [][]int32{ids}); err != nil {
				return work, "", nil, err
			}
			seconds = append(seconds, time.Since(started).Seconds())
		}
		return work, fmt.Sprintf("a prompt of %d tokens", n), seconds, nil
	}
}

// decode measures generating after a short prompt, one sequence at a time.
func (s *session) decode(m *model.Model, roof Roof) (Work, string, []float64, error) {
	e := extentOf(m)
	one, _ := e.decode(promptTokens, 1).Seconds(roof)
	tokens := min(newTokens, max(fewTokens, int(decodeTime/one)), m.Config.MaxPositions-promptTokens-1)
	work := e.decode(promptTokens, tokens)
	if tokens < 1 {
		return work, "", nil, fmt.Errorf("max_position_embeddings is %d", m.Config.MaxPositions)
	}
	prompt := [][]int32{random(m.Config, promptTokens)}
	if _, err := m.Generate(s.ctx, prompt, model.GenerateOptions{MaxNew: 2}); err != nil { // warms up
		return work, "", nil, err
	}
	var seconds []float64
	for !s.limits.enough(seconds) {
		g, err := m.Generate(s.ctx, prompt, model.GenerateOptions{MaxNew: tokens + 1})
		if err != nil {
			return work, "", nil, err
		}
		seconds = append(seconds, g[0].Decode.Seconds())
	}
	return work, fmt.Sprintf("%d new tokens after %d", tokens, promptTokens), seconds, nil
}

// stepOf measures training steps of an adapter, forward to the optimiser: those of the first shape that the floor allows to
// take stepTime, or else of the last.
func stepOf(shapes [][2]int) func(s *session, m *model.Model, roof Roof) (Work, string, []float64, error) {
	return func(s *session, m *model.Model, roof Roof) (Work, string, []float64, error) {
		return s.step(m, roof, shapes)
	}
}

// step is stepOf. The first step warms up.
func (s *session) step(m *model.Model, roof Roof, shapes [][2]int) (Work, string, []float64, error) {
	adapter, err := model.NewAdapter(s.b, m.Config, model.AdapterConfig{R: rank, Alpha: 2 * rank, Dropout: 0.05, Targets: []string{"q_proj", "v_proj"}}, 1, m.DType())
	if err != nil {
		return Work{}, "", nil, err
	}
	defer adapter.Free()
	adapted := &model.Model{Weights: m.Weights, Adapter: adapter}
	e := extentOf(adapted)
	var work Work
	var rows, tokens int
	for _, shape := range shapes {
		rows, tokens = shape[0], min(shape[1], m.Config.MaxPositions)
		work = e.step(rows, tokens, rank)
		if floor, _ := work.Seconds(roof); floor <= stepTime {
			break
		}
	}
	var data []dataset.Example
	for range rows {
		ids := random(m.Config, tokens)
		data = append(data, dataset.Example{IDs: ids, Labels: ids})
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var seconds []float64
	_, err = train.Run(ctx, adapted, data, train.Options{
		MaxSteps: math.MaxInt16, BatchSize: 1, Accumulation: rows, LR: 1e-4, Schedule: "constant", Optimizer: "adamw", Beta1: 0.9, Beta2: 0.999,
		Eps: 1e-8, MaxGradNorm: 1, LossPer: "token", FP16: s.b.Activations() == kernels.F16, Recompute: model.RecomputeFor(s.b.Name(), false, rows*tokens),
	}, train.Hooks{OnStep: func(step train.Step) {
		if step.Step > 1 {
			seconds = append(seconds, step.Seconds)
		}
		if s.limits.enough(seconds) {
			cancel()
		}
	}})
	if err != nil && !errors.Is(err, context.Canceled) {
		return work, "", nil, err
	}
	return work, fmt.Sprintf("%d × (1×%d) tokens, rank %d on q_proj v_proj", rows, tokens, rank), seconds, nil
}
