package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Stages are the pipeline's stages in order, as Part and the stages tags name them.
var Stages = []string{"base", "quantize", "lora", "lora_quantize", "evaluate", "upload"}

// Part is the canonical JSON of the keys that a stage's own work depends on, an object from key to value. Two
// configurations with the same bytes give the same output from the same inputs. What a stage takes from the stages before
// it is not part of it, nor are paths and the device. It fails only for a stage that does not exist.
func (c *Config) Part(stage string) ([]byte, error) {
	if !slices.Contains(Stages, stage) {
		return nil, fmt.Errorf("there is no stage %q; allowed: %s", stage, strings.Join(Stages, ", "))
	}
	part := map[string]any{}
	for _, f := range c.fields() {
		if slices.Contains(f.stages, stage) {
			part[f.key] = f.value.Interface()
		}
	}
	if stage == "lora" && c.Dataset.HeldOutFile != "" {
		delete(part, "dataset.held_out") // the rows come from a file of their own, so training sees all the dataset's
	}
	return json.Marshal(part)
}
