package golden

import (
	"path"

	"quartet/kernels"
)

// halfLimits are the limits of checks against fp32 references where activations are kept in fp16, by patterns of their names.
// Those of training are the reference's own fp16 runs'; those of hidden states, logits and gradients are this program's own,
// two to six times what fp16 comes to. bf16 keeps to few of them. A negative one leaves the check out.
var halfLimits = []struct {
	pattern string
	limit   float64
}{
	{"phi/forward/hidden", 5e-3},
	{"phi/forward/logits", 5e-3},
	{"phi/forward/loss", limitsFP16.loss},
	{"phi/generate/repetition_penalty", -1}, // the reference keeps no margins there, so a close call can't be told from an error
	{"phi/nf4/logits", 5e-3},
	{"phi/lora/logits", 5e-3},
	{"phi/lora/gradients", 1e-2},
	{"phi/train/*/loss", limitsFP16.loss},
	{"phi/train/*/grad_norm", limitsFP16.gradNorm},
	{"phi/train/*/adapter", limitsFP16.adapter},
}

// fit gives a check the limit of the backend: a GPU's fp32 sums run in another order than the reference's, for which three
// times the limit is allowed; 16-bit activations have limits of their own. made is false for a check that they leave out.
func fit(c Check, b kernels.Backend) (fitted Check, made bool) {
	if b.Name() == "cpu" || c.Error < 0 {
		return c, true
	}
	if b.Activations() == kernels.F32 {
		c.Limit *= 3
	} else {
		for _, h := range halfLimits {
			if same, _ := path.Match(h.pattern, c.Check); same {
				c.Limit = h.limit
			}
		}
	}
	c.OK = c.Error <= c.Limit
	return c, c.Limit >= 0
}

// closeCall is the margin between the two most likely tokens under which either may be the greedy choice.
func closeCall(b kernels.Backend) float64 {
	if b.Activations() == kernels.F32 {
		return 1e-3
	}
	return 2e-2
}
