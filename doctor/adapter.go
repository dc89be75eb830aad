package doctor

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"quartet/console"
	"quartet/model"
	"quartet/safetensors"
)

// pair is the two tensors of an adapted linear.
type pair struct{ a, b *safetensors.Tensor }

// loraName is a LoRA weight as PEFT saves it: its module, A or B, and the adapter's name where it was not saved by PEFT.
var loraName = regexp.MustCompile(`^(base_model\.model\.)?(.+)\.lora_([AB])(\.[^.]+)?\.weight$`)

// adapter examines a PEFT folder.
func (x *exam) adapter(dir string, names []string) {
	x.r.Kind = Adapter
	all := []Library{PEFT, Quartet}
	x.files(dir, names, all)
	config := x.adapterConfig(dir, names, all)
	x.adapterWeights(dir, names, config, all)
	x.judge(all...)
}

// adapterConfig reads adapter_config.json; it is nil where this program refuses it.
func (x *exam) adapterConfig(dir string, names []string, all []Library) *model.AdapterConfig {
	if !slices.Contains(names, adapterConfigName) {
		x.fail(adapterConfigName, all, "missing; take it from where the adapter was saved")
		return nil
	}
	var s struct {
		PeftType string `json:"peft_type"`
		Base     string `json:"base_model_name_or_path"`
	}
	data, err := readSmall(filepath.Join(dir, adapterConfigName))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	switch {
	case err != nil:
		x.fail(adapterConfigName, all, "%.100s; save the adapter again", err)
		return nil
	case s.PeftType == "":
		x.fail(adapterConfigName, all, "peft_type is missing; save the adapter again")
		return nil
	case s.Base == "":
		x.note(adapterConfigName, "names no base model; give PEFT the base explicitly")
	case filepath.IsAbs(s.Base) || strings.HasPrefix(s.Base, "."):
		x.note(adapterConfigName, "names the base by a path of a machine, %.120q; give PEFT the base explicitly elsewhere", s.Base)
	}
	config, err := model.ReadAdapterConfig(dir)
	if err != nil {
		x.fail(adapterConfigName, []Library{Quartet}, "%s", strings.TrimPrefix(err.Error(), adapterConfigName+": "))
		return nil
	}
	return &config
}

// adapterWeights examines the tensors, against config where that is not nil.
func (x *exam) adapterWeights(dir string, names []string, config *model.AdapterConfig, all []Library) {
	if !slices.Contains(names, adapterModelName) {
		if slices.Contains(names, "adapter_model.bin") {
			x.fail("adapter_model.bin", []Library{Quartet}, "only a pickle, which can run code when it is loaded; load it with PEFT and save it again, which writes safetensors")
		} else {
			x.fail(adapterModelName, all, "missing; take it from where the adapter was saved")
		}
		return
	}
	path := filepath.Join(dir, adapterModelName)
	if x.open(path, adapterModelName, all) == nil {
		return
	}
	f, err := safetensors.Open(path)
	if err != nil {
		return // told by open
	}
	defer f.Close()
	pairs := x.pairs(f, config, all)
	x.r.About = aboutAdapter(path, config, pairs)
	if len(pairs) == 0 {
		x.fail(adapterModelName, all, "no LoRA weights, so it changes nothing; save the adapter again with save_pretrained")
		return
	}
	if config != nil {
		x.targets(pairs, *config, all)
		x.ranks(pairs, *config, all)
	}
	x.effect(pairs)
	contents := make([]content, len(f.Tensors()))
	for i, t := range f.Tensors() {
		contents[i], _ = look(t)
	}
	x.finite(f.Tensors(), contents, []Library{Quartet})
	if x.Base != "" {
		x.against(pairs, all)
	}
}

// pairs sorts the file's tensors by the linear that they adapt, and tells of those that no loader takes.
func (x *exam) pairs(f *safetensors.File, config *model.AdapterConfig, all []Library) map[string]pair {
	pairs := map[string]pair{}
	var renamed, foreign []string
	for _, t := range f.Tensors() {
		m := loraName.FindStringSubmatch(t.Name)
		switch {
		case m == nil:
			foreign = append(foreign, fmt.Sprintf("%.120q", t.Name))
			continue
		case m[1] == "" || m[4] != "":
			renamed = append(renamed, fmt.Sprintf("%.120q", t.Name))
			continue
		}
		p := pairs[m[2]]
		if m[3] == "A" {
			p.a = &t
		} else {
			p.b = &t
		}
		pairs[m[2]] = p
	}
	if len(renamed) > 0 {
		x.fail(adapterModelName, all, "%s: not the names that save_pretrained gives (base_model.model.….lora_A.weight), so loaders skip them; save the adapter with save_pretrained", some(renamed))
	}
	if len(foreign) > 0 && config != nil {
		x.fail(adapterModelName, []Library{Quartet}, "%s: no LoRA weights of a linear; is it the adapter of another method?", some(foreign))
	}
	var single []string
	for _, path := range slices.Sorted(maps.Keys(pairs)) {
		if p := pairs[path]; p.a == nil || p.b == nil {
			single = append(single, fmt.Sprintf("%.120s", path))
			delete(pairs, path)
		}
	}
	if len(single) > 0 {
		x.fail(adapterModelName, all, "only one of A and B is there for %s; save the adapter again", some(single))
	}
	return pairs
}

// targets holds the linears that the settings name against those that have weights.
func (x *exam) targets(pairs map[string]pair, config model.AdapterConfig, all []Library) {
	named := func(path, target string) bool { return path == target || strings.HasSuffix(path, "."+target) }
	var without, beside []string
	for _, target := range config.Targets {
		found := false
		for path := range pairs {
			found = found || named(path, target)
		}
		if !found {
			without = append(without, target)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(pairs)) {
		if !slices.ContainsFunc(config.Targets, func(target string) bool { return named(path, target) }) {
			beside = append(beside, fmt.Sprintf("%.120s", path))
		}
	}
	if len(without) > 0 {
		x.fail(adapterConfigName, []Library{Quartet}, "target_modules names %s, for which there are no weights: PEFT leaves those as they start, without effect; name only what was trained", some(without))
	}
	if len(beside) > 0 {
		x.fail(adapterConfigName, all, "target_modules does not name %s, whose weights loaders skip; add them to target_modules", some(beside))
	}
}

// ranks holds the shapes against the rank.
func (x *exam) ranks(pairs map[string]pair, config model.AdapterConfig, all []Library) {
	var wrong []string
	for _, path := range slices.Sorted(maps.Keys(pairs)) {
		a, b := pairs[path].a.Shape, pairs[path].b.Shape
		if len(a) != 2 || len(b) != 2 || a[0] != config.R || b[1] != config.R {
			wrong = append(wrong, fmt.Sprintf("%.120s (A %v, B %v)", path, a, b))
		}
	}
	if len(wrong) > 0 {
		x.fail(adapterModelName, all, "r is %d, but the weights have another rank: %s; take the %s that was saved with them", config.R, some(wrong), adapterConfigName)
	}
	if config.Alpha == 0 {
		x.fail(adapterConfigName, nil, "lora_alpha is 0, so the adapter changes nothing; set it as in the training")
	}
}

// effect tells of linears that the adapter does not change.
func (x *exam) effect(pairs map[string]pair) {
	var idle []string
	for _, path := range slices.Sorted(maps.Keys(pairs)) {
		a, okA := look(*pairs[path].a)
		b, okB := look(*pairs[path].b)
		if okA && a.zero || okB && b.zero {
			idle = append(idle, fmt.Sprintf("%.120s", path))
		}
	}
	switch {
	case len(idle) == len(pairs):
		x.fail(adapterModelName, nil, "every A or B is zero, as before training, so that the adapter changes nothing; train it, or save it after training")
	case len(idle) > 0:
		x.warn(adapterModelName, "A or B is zero, as before training, for %d of %d linears: %s; was the training cut short?", len(idle), len(pairs), some(idle))
	}
}

// against holds the adapter against its base.
func (x *exam) against(pairs map[string]pair, all []Library) {
	c, err := model.ReadConfig(x.Base)
	if err != nil {
		x.warn("", "not held against the base: %s", err)
		return
	}
	shapes := map[string][2]int{}
	for i := range c.Layers {
		for l := range model.LinearsPerLayer {
			out, in := c.LinearShape(l)
			shapes[model.LinearPath(i, l)] = [2]int{out, in}
		}
	}
	out, in := c.LinearShape(model.LMHead)
	shapes[model.LinearPath(0, model.LMHead)] = [2]int{out, in}
	var foreign, wrong []string
	for _, path := range slices.Sorted(maps.Keys(pairs)) {
		a, b := pairs[path].a.Shape, pairs[path].b.Shape
		shape, ok := shapes[path]
		switch {
		case !ok:
			foreign = append(foreign, fmt.Sprintf("%.120s", path))
		case len(a) == 2 && len(b) == 2 && (b[0] != shape[0] || a[1] != shape[1]):
			wrong = append(wrong, fmt.Sprintf("%s is %d×%d, not %d×%d", path, shape[0], shape[1], b[0], a[1]))
		}
	}
	if len(foreign) > 0 {
		x.fail(adapterModelName, all, "the base has no %s; take the base that the adapter was trained on", some(foreign))
	}
	if len(wrong) > 0 {
		x.fail(adapterModelName, all, "of the base, %s; take the base that the adapter was trained on", some(wrong))
	}
}

// aboutAdapter is an adapter in a line.
func aboutAdapter(path string, config *model.AdapterConfig, pairs map[string]pair) string {
	linears := map[string]bool{}
	parameters, types := int64(0), map[string]bool{}
	for name, p := range pairs {
		linears[name[strings.LastIndexByte(name, '.')+1:]] = true
		for _, t := range []*safetensors.Tensor{p.a, p.b} {
			types[string(t.DType)] = true
			if size := t.DType.Size(); size > 0 {
				parameters += int64(len(t.Data) / size)
			}
		}
	}
	text := fmt.Sprintf("LoRA of %d linears (%.200s), %s parameters, %s", len(pairs), strings.Join(slices.Sorted(maps.Keys(linears)), ", "),
		count(parameters), strings.Join(slices.Sorted(maps.Keys(types)), "+"))
	if config != nil {
		text += fmt.Sprintf(", r %d, alpha %g", config.R, config.Alpha)
		if config.BaseModel != "" {
			text += fmt.Sprintf(", base %.120s", config.BaseModel)
		}
	}
	if info, err := os.Stat(path); err == nil {
		text += ", " + console.Bytes(info.Size())
	}
	return text
}
