package pipeline

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"quartet/config"
	"quartet/dataset"
	"quartet/demo"
	"quartet/eval"
	"quartet/event"
	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/kernels/cuda"
	"quartet/model"
)

// predict fills in what each stage of a plan will need: memory and disk from the model's shape, time from the stage's last
// run, or where there was none from a short measurement of this machine.
func (w *Workspace) predict(plan Plan, all []facts) {
	defer w.predictUploads(plan, all)
	mc, ok := w.modelConfig()
	if !ok {
		return
	}
	s := w.sizes(mc)
	speed := sync.OnceValue(func() machineSpeed { return speedOf(w.Config.Device) })
	for i := range plan {
		p := &plan[i].Prediction
		switch plan[i].Stage {
		case Base:
			p.DiskBytes, p.Memory = s.base, event.Uses{"other": 64 << 20}
		case Quantize:
			p.DiskBytes, p.Memory = s.nf4, event.Uses{"weights": 9 * s.largest}
		case LoRA:
			p.DiskBytes, p.Memory = 4*s.adapter, s.training
		case LoRAQuantize:
			p.DiskBytes, p.Memory = s.nf4, event.Uses{"weights": 11 * s.largest}
		case Evaluate:
			p.DiskBytes, p.Memory = int64(s.heldOut)*4096, s.evaluation
		case Upload:
			p.DiskBytes, p.Memory = 4096, event.Uses{"other": 64 << 20}
		}
		if m := all[i].manifest; m != nil && m.Seconds > 0 {
			p.Seconds = m.Seconds
			if rate := m.Figures["tokens_per_second"]; plan[i].Stage == LoRA && rate > 0 {
				p.Seconds = s.trainTokens / rate
			}
			continue
		}
		if plan[i].Run && plan[i].Stage != Upload { // whose line nobody knows
			p.Seconds = s.seconds(plan[i].Stage, speed())
		}
	}
}

// predictUploads fills in what a plan's last stage takes elsewhere.
func (w *Workspace) predictUploads(plan Plan, all []facts) {
	last := &plan[len(plan)-1]
	if last.Stage != Upload || !last.Run {
		return
	}
	for _, d := range w.uploads() {
		at := slices.IndexFunc(all, func(f facts) bool { return f.stage == d.stage })
		bytes := plan[at].DiskBytes
		if !plan[at].Run {
			bytes = all[at].found.Bytes()
		}
		last.Uploads = append(last.Uploads, event.UploadPart{Variant: variantNames[d.stage], To: d.to, Bytes: bytes})
	}
}

// modelConfig is the shape of the base model, from wherever it can be read before the base stage has run.
func (w *Workspace) modelConfig() (model.Config, bool) {
	if c, err := model.ReadConfig(w.Path(w.Config.Paths.Base)); err == nil {
		return c, true
	}
	switch w.Config.Model.Source() {
	case config.Embedded:
		data, err := fs.ReadFile(demo.Model(), "config.json")
		if err != nil {
			return model.Config{}, false
		}
		c, err := model.ParseConfig(data)
		return c, err == nil
	case config.Folder:
		c, err := model.ReadConfig(w.Path(w.Config.Model.Name))
		return c, err == nil
	}
	return model.Config{}, false
}

// sizes is what the predictions are made of.
type sizes struct {
	parameters, linears  int64      // of the model; of these, in the matrices that are quantised
	base, nf4            int64      // bytes of the weights
	largest              int64      // elements of the largest quantised matrix
	adapter              int64      // parameters
	training, evaluation event.Uses // at the peak
	trainTokens          float64
	heldOut              int // rows
	heldOutTokens        float64
	answerTokens         float64
}

func (w *Workspace) sizes(mc model.Config) sizes {
	c := w.Config
	s := sizes{parameters: mc.Parameters()}
	for l := range model.LMHead {
		out, in := mc.LinearShape(l)
		s.linears += int64(mc.Layers) * int64(out) * int64(in)
		s.largest = max(s.largest, int64(out)*int64(in))
	}
	s.base = 2 * s.parameters
	scales := s.linears / 64 * 4
	if c.Quantization.DoubleQuant {
		scales = s.linears/64 + s.linears/64/256*4
	}
	s.nf4 = s.linears/2 + scales + 2*(s.parameters-s.linears)
	for _, name := range c.LoRA.TargetModules {
		l := model.LinearByName(name)
		if l < 0 {
			continue
		}
		out, in := mc.LinearShape(l)
		n := int64(c.LoRA.R) * int64(out+in)
		if l != model.LMHead {
			n *= int64(mc.Layers)
		}
		s.adapter += n
	}
	rowTokens, rows := w.rowTokens()
	samples := min(c.Dataset.NumSamples, rows)
	if samples == 0 {
		samples = max(0, rows-c.Dataset.HeldOut)
	}
	s.trainTokens = c.Training.NumEpochs * float64(samples) * rowTokens
	s.heldOut, s.heldOutTokens = c.Dataset.HeldOut, float64(c.Dataset.HeldOut)*rowTokens
	s.answerTokens = float64(c.Dataset.HeldOut+len(c.Evaluation.TestPrompts)) * float64(c.Evaluation.MaxNewTokens)

	device, act := expected(c.Device)
	group := packedTokens(c)
	again := model.RecomputeFor(device, c.Training.GradientCheckpointing, group)
	s.training = event.Uses{"weights": s.base}
	if c.LoRA.Base == "nf4" {
		s.training["weights"] = s.nf4
		if device == "cuda" {
			s.training["weights"] += int64(act.Bytes(int(s.largest))) // the matrix that is dequantised at the moment
		}
	}
	moments := int64(8)
	if c.Training.Optim == "paged_adamw_8bit" {
		moments = 2
	}
	if pass, err := mc.TrainingBytes(model.AdapterConfig{R: c.LoRA.R, Targets: c.LoRA.TargetModules}, group, again, act); err == nil {
		s.training["adapter"], s.training["optimizer"], s.training["activations"] = 8*s.adapter, s.adapter*moments, pass-8*s.adapter
	}
	longest := min(c.Dataset.MaxLength+c.Evaluation.MaxNewTokens, mc.MaxPositions)
	s.evaluation = event.Uses{"weights": s.base + 2*s.nf4, "adapter": 4 * s.adapter}
	if device == "cuda" { // what quantising leaves is shared, and one matrix is dequantised at the moment
		s.evaluation["weights"] += int64(act.Bytes(int(s.largest))) - 2*2*(s.parameters-s.linears)
	}
	if pass, err := mc.PassBytes(eval.GroupTokens, act); err == nil {
		s.evaluation["activations"] = 4 * pass
	}
	if cache, err := mc.CacheBytes(c.Evaluation.Batch, longest, act); err == nil {
		s.evaluation["cache"] = cache
	}
	return s
}

// rowTokens is about how many tokens a row of the dataset has after the template and truncation, and how many rows
// there are, judged by its first mebibyte.
func (w *Workspace) rowTokens() (tokens float64, rows int) {
	const bytesPerToken, keys = 3.5, len(`{"instruction": "", "context": "", "response": "", "category": ""}`)
	c := w.Config
	longest := float64(c.Dataset.MaxLength)
	if dataset.IsParquet(w.DatasetFile()) { // packed, so that its bytes tell nothing
		return longest, c.Dataset.NumSamples
	}
	f, err := os.Open(w.DatasetFile())
	if err != nil {
		return longest, c.Dataset.NumSamples
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, 1<<20))
	lines := bytes.Count(head, []byte{'\n'})
	info, statErr := f.Stat()
	if err != nil || statErr != nil || lines == 0 {
		return longest, c.Dataset.NumSamples
	}
	line := float64(len(head)) / float64(lines)
	tokens = (line - float64(keys) + float64(len(c.Prompt.Template))) / bytesPerToken
	return min(max(tokens, 1), longest), int(float64(info.Size()) / line)
}

// machineSpeed is what this machine was measured to do.
type machineSpeed struct {
	flops     float64 // a second, in products of the model's kind
	decoding  float64 // the same with one token at a time, which waits for memory
	quantised float64 // weights a second
}

// speedOf is that of what a device setting stands for. A GPU's is guessed from its processors, of which each is taken to read
// 10 GB/s and to multiply at the rate that its generation sustains in training: measuring it would take memory that others may need.
func speedOf(device string) machineSpeed {
	if device != "cpu" {
		if gpus, err := cuda.Devices(); err == nil {
			return guessed(gpus[0])
		}
	}
	return measured()
}

func guessed(gpu cuda.Info) machineSpeed {
	each := 0.5e12
	if gpu.Major >= 9 && gpu.Major != 12 {
		each = 2e12
	}
	n := float64(gpu.Processors)
	return machineSpeed{flops: n * each, decoding: n * 10e9, quantised: n * 1e9}
}

// measured is the speed of the CPU: half of its products' is reached on the whole, and decoding a quarter of that. The first call of
// a process takes some hundredths of a second.
var measured = sync.OnceValue(func() (s machineSpeed) {
	const tokens, width = 64, 768
	b := cpu.New()
	f32 := func(rows, cols int) kernels.Tensor {
		return kernels.HostTensor(kernels.F32, rows, cols, make([]byte, 4*rows*cols))
	}
	half := kernels.HostTensor(kernels.F16, width, width, make([]byte, 2*width*width))
	out, in := f32(tokens, width), f32(tokens, width)
	product := perSecond(func() { b.Linear(out, in, half, kernels.Tensor{}) })
	s.flops = product * tokens * width * width // half of 2·tokens·width²
	s.decoding = s.flops / 4
	if packed, err := model.AllocNF4(b, width, width, 64, kernels.F16, true); err == nil {
		s.quantised = perSecond(func() { b.QuantizeNF4(packed, half) }) * width * width
		b.Free(packed)
	}
	return s
})

// perSecond is how often work can be done a second, by the best of some hundredths of a second.
func perSecond(work func()) float64 {
	work()
	best := time.Duration(1 << 62)
	for started := time.Now(); time.Since(started) < 20*time.Millisecond; {
		before := time.Now()
		work()
		best = min(best, time.Since(before))
	}
	return 1 / max(best, time.Microsecond).Seconds()
}

// seconds is how long a stage takes at most likely, to one digit.
func (s sizes) seconds(stage string, m machineSpeed) float64 {
	const diskBytes = 500e6 // a second, read, hashed and written
	forward := 2 * float64(s.parameters)
	switch stage {
	case Base:
		return float64(s.base) / diskBytes
	case Quantize:
		return float64(s.nf4)/diskBytes + s.quantisation(m)
	case LoRA:
		return s.trainTokens * 2 * forward / m.flops
	case LoRAQuantize:
		return float64(s.nf4)/diskBytes + 2*s.quantisation(m)
	}
	return 4 * forward * (2*s.heldOutTokens/m.flops + s.answerTokens/m.decoding)
}

func (s sizes) quantisation(m machineSpeed) float64 {
	if m.quantised == 0 {
		return 0
	}
	return float64(s.linears) / m.quantised
}
