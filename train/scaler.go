package train

// Dynamic loss scaling (Micikevicius et al. 2018), with the constants of torch's GradScaler.
const (
	firstScale   = 65536
	growAfter    = 2000 // good steps
	maxOverflows = 20   // in a row; the scale has then shrunk by a million
)

// scaler keeps the loss scale of an fp16 run, so large that small gradients survive and so small that large ones don't
// overflow. The scale is a power of two, which in float32 changes no bit of the result.
type scaler struct {
	Scale     float64 `json:"scale"`
	Good      int     `json:"good"`      // steps since the scale changed
	Overflows int     `json:"overflows"` // in a row
}

func newScaler(fp16 bool) scaler {
	if fp16 {
		return scaler{Scale: firstScale}
	}
	return scaler{Scale: 1}
}

// good notes a step whose gradients were finite.
func (s *scaler) good() {
	s.Overflows = 0
	if s.Good++; s.Good == growAfter {
		s.Scale, s.Good = 2*s.Scale, 0
	}
}

// overflow notes a step whose gradients were not finite.
func (s *scaler) overflow() {
	s.Scale, s.Good, s.Overflows = s.Scale/2, 0, s.Overflows+1
}
