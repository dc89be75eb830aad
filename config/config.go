// Package config is Quartet's configuration: one commented TOML file, decoded strictly into a typed Config.
//
// Every key has a default, so an empty file is phi-2's configuration. A key that does not exist, a value of the wrong type
// and a value that cannot work are errors that show the line, mark the place and say what is allowed.
//
// The struct tags of Config are the one list of its keys: toml is the key's name, python the variable of the Python
// pipeline that it replaces, and stages the pipeline stages whose output depends on it (see Part).
package config

// Config is the whole configuration of one workspace. Relative paths in it are relative to the workspace.
type Config struct {
	// Seed is the one source of randomness: the split of the rows, their order, the adapter's start, dropout, sampling.
	Seed uint64 `toml:"seed" stages:"lora evaluate"`
	// Device is "auto" (CUDA where there is a usable GPU, else the CPU), "cpu" or "cuda".
	Device string `toml:"device" python:"device"`

	Model        Model        `toml:"model"`
	Paths        Paths        `toml:"paths"`
	Quantization Quantization `toml:"quantization"`
	LoRA         LoRA         `toml:"lora"`
	Dataset      Dataset      `toml:"dataset"`
	Prompt       Prompt       `toml:"prompt"`
	Training     Training     `toml:"training"`
	Evaluation   Evaluation   `toml:"evaluation"`
	Upload       Upload       `toml:"upload"`
	History      History      `toml:"history"`
	Worker       Worker       `toml:"worker"`
	Workbench    Workbench    `toml:"workbench"`
	// Keys gives actions of the workbench other keys, by the action's name. The workbench knows the names.
	Keys map[string][]string `toml:"keys"`
}

// Model names the base model.
type Model struct {
	// Name is a hub id ("microsoft/phi-2"), a local folder (beginning with "/", "./" or "../") or "embedded"; see Source.
	Name string `toml:"name" stages:"base"`
	// Revision is a branch, tag or commit of the hub, "" for its default branch.
	Revision string `toml:"revision" stages:"base"`
}

// Paths are the folders of the four variants and of the results. They never coincide or lie inside one another.
type Paths struct {
	Base          string `toml:"base" python:"models['base']"`
	Quantized     string `toml:"quantized" python:"models['quantized']"`
	LoRA          string `toml:"lora" python:"models['lora']"`
	LoRAQuantized string `toml:"lora_quantized" python:"models['lora_quantized']"`
	Results       string `toml:"results" python:"results"`
}

// Quantization is how both 4-bit variants are made, and what their quantization_config says.
type Quantization struct {
	LoadIn4Bit  bool   `toml:"load_in_4bit" python:"load_in_4bit" stages:"quantize lora_quantize"`      // always true
	QuantType   string `toml:"quant_type" python:"bnb_4bit_quant_type" stages:"quantize lora_quantize"` // "nf4"
	DoubleQuant bool   `toml:"double_quant" python:"bnb_4bit_use_double_quant" stages:"quantize lora_quantize"`
	// ComputeDType is "float16", "bfloat16" or "float32": the type in which a loader multiplies the 4-bit weights.
	ComputeDType string `toml:"compute_dtype" python:"bnb_4bit_compute_dtype" stages:"quantize lora_quantize"`
}

// LoRA is the adapter's shape and the base it is trained on and merged into.
type LoRA struct {
	R             int      `toml:"r" python:"r" stages:"lora"`                           // rank
	Alpha         float64  `toml:"alpha" python:"lora_alpha" stages:"lora"`              // the update is scaled by Alpha/R
	Dropout       float64  `toml:"dropout" python:"lora_dropout" stages:"lora"`          // on the adapter's input
	TargetModules []string `toml:"target_modules" python:"target_modules" stages:"lora"` // of TargetModules
	Base          string   `toml:"base" stages:"lora"`                                   // "fp16", or "nf4" (QLoRA)
	Merge         string   `toml:"merge" stages:"lora_quantize"`                         // "fp16" or "dequantized"
}

// Dataset is the rows, how many of them are trained on and held out, and how a row becomes tokens and labels.
type Dataset struct {
	// Name is a hub id, or a local file ending in ".jsonl" or ".parquet"; see Local.
	Name       string `toml:"name" python:"dataset_name" stages:"lora evaluate"`
	Revision   string `toml:"revision" stages:"lora evaluate"`
	NumSamples int    `toml:"num_samples" python:"num_samples" stages:"lora evaluate"` // rows to train on, 0 for all that are left
	// HeldOut is how many rows are kept from training for the evaluation; 0 for none, or for all of HeldOutFile.
	HeldOut int `toml:"held_out" stages:"lora evaluate"`
	// HeldOutFile is a .jsonl or .parquet file that the held-out rows come from, "" to take them out of the dataset.
	HeldOutFile string `toml:"held_out_file" stages:"evaluate"`
	MaxLength   int    `toml:"max_length" python:"max_length" stages:"lora evaluate"` // tokens
	// Padding is "max_length" or "longest": what the report counts as padding. Rows are packed; no padding is ever computed.
	Padding    string `toml:"padding" python:"padding"`
	Truncation bool   `toml:"truncation" python:"truncation" stages:"lora evaluate"` // false makes a row above MaxLength an error
	Labels     string `toml:"labels" stages:"lora"`                                  // "all", "seed" or "response"
}

// Prompt is the text around a row. The response follows it.
type Prompt struct {
	Template string `toml:"template" stages:"lora evaluate"` // holds {instruction}, and {context} where Context goes
	Context  string `toml:"context" stages:"lora evaluate"`  // holds {context}; left out of rows without a context
}

// Training is the optimisation.
type Training struct {
	NumEpochs                 float64 `toml:"num_epochs" python:"num_epochs" stages:"lora"`
	BatchSize                 int     `toml:"batch_size" python:"batch_size" stages:"lora"` // rows
	LearningRate              float64 `toml:"learning_rate" python:"learning_rate" stages:"lora"`
	GradientAccumulationSteps int     `toml:"gradient_accumulation_steps" python:"gradient_accumulation_steps" stages:"lora"`
	WarmupSteps               int     `toml:"warmup_steps" python:"warmup_steps" stages:"lora"`
	MaxGradNorm               float64 `toml:"max_grad_norm" python:"max_grad_norm" stages:"lora"` // 0 for no clipping
	WeightDecay               float64 `toml:"weight_decay" stages:"lora"`
	AdamBeta1                 float64 `toml:"adam_beta1" stages:"lora"`
	AdamBeta2                 float64 `toml:"adam_beta2" stages:"lora"`
	AdamEpsilon               float64 `toml:"adam_epsilon" stages:"lora"`
	FP16                      bool    `toml:"fp16" python:"fp16" stages:"lora"`
	Optim                     string  `toml:"optim" python:"optim" stages:"lora"` // "paged_adamw_8bit" or "adamw"
	Schedule                  string  `toml:"schedule" stages:"lora"`             // "linear", "cosine" or "constant"
	LossPer                   string  `toml:"loss_per" stages:"lora"`             // "token" or "micro_batch"
	// SaveStrategy, SaveSteps and GradientCheckpointing change what a run costs and keeps, never the adapter it ends with.
	SaveStrategy          string `toml:"save_strategy" python:"save_strategy"` // "no" or "steps"
	SaveSteps             int    `toml:"save_steps"`
	GradientCheckpointing bool   `toml:"gradient_checkpointing" python:"gradient_checkpointing"`
}

// Evaluation is what the variants are asked and how they answer.
type Evaluation struct {
	TestPrompts       []string `toml:"test_prompts" python:"test_prompts" stages:"evaluate"` // instructions, put into Prompt.Template
	MaxNewTokens      int      `toml:"max_new_tokens" stages:"evaluate"`
	Temperature       float64  `toml:"temperature" stages:"evaluate"`        // 0 for greedy answers
	TopK              int      `toml:"top_k" stages:"evaluate"`              // 0 for all tokens
	TopP              float64  `toml:"top_p" stages:"evaluate"`              // 1 for all tokens
	RepetitionPenalty float64  `toml:"repetition_penalty" stages:"evaluate"` // 1 for none
	Batch             int      `toml:"batch" stages:"evaluate"`              // rows answered at once
}

// Upload is where variants go when they are made: hf://org/name, s3://bucket/prefix, gdrive://folder or zip://path, "" for nowhere.
type Upload struct {
	Base          string `toml:"base" stages:"upload"`
	Quantized     string `toml:"quantized" stages:"upload"`
	LoRA          string `toml:"lora" stages:"upload"`
	LoRAQuantized string `toml:"lora_quantized" stages:"upload"`
	Public        bool   `toml:"public" stages:"upload"` // a repository of the hub that is made for them
}

// Any reports whether some variant goes somewhere.
func (u Upload) Any() bool { return u.Base+u.Quantized+u.LoRA+u.LoRAQuantized != "" }

// History is what is kept of former runs.
type History struct {
	Keep int `toml:"keep"` // runs per stage, 0 for none
}

// Worker is how long the process lives that does the work.
type Worker struct {
	IdleMinutes int `toml:"idle_minutes"` // with nothing to do and nobody looking on, 0 for no end
}

// Workbench is how the workbench looks and calls.
type Workbench struct {
	Theme  string `toml:"theme"`  // "auto", "dark" or "light"
	ASCII  bool   `toml:"ascii"`  // no characters beyond ASCII, whatever the locale says
	Mouse  bool   `toml:"mouse"`  // clicks and the wheel; the terminal's own selection then needs shift
	Notify string `toml:"notify"` // "bell", "osc9" or "off": when a stage ends
}

// TargetModules are the linears of a Phi that LoRA may adapt, as LoRA.TargetModules names them.
var TargetModules = []string{"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2", "lm_head"}

// Default is phi-2's configuration, the same that the project's config.toml spells out.
func Default() *Config {
	return &Config{
		Seed:   42,
		Device: "auto",
		Model:  Model{Name: "microsoft/phi-2"},
		Paths: Paths{
			Base:          "models/phi-2-base",
			Quantized:     "models/phi-2-quantized",
			LoRA:          "models/phi-2-lora",
			LoRAQuantized: "models/phi-2-lora-quantized",
			Results:       "results",
		},
		Quantization: Quantization{LoadIn4Bit: true, QuantType: "nf4", DoubleQuant: true, ComputeDType: "float16"},
		LoRA:         LoRA{R: 8, Alpha: 16, Dropout: 0.1, TargetModules: []string{"q_proj", "v_proj"}, Base: "fp16", Merge: "fp16"},
		Dataset: Dataset{
			Name:       "databricks/databricks-dolly-15k",
			NumSamples: 100,
			HeldOut:    100,
			MaxLength:  256,
			Padding:    "max_length",
			Truncation: true,
			Labels:     "all",
		},
		Prompt: Prompt{
			Template: "### Instruction:\n{instruction}\n\n{context}### Response:\n",
			Context:  "### Context:\n{context}\n\n",
		},
		Training: Training{
			NumEpochs:                 1,
			BatchSize:                 1,
			LearningRate:              5e-5,
			GradientAccumulationSteps: 4,
			WarmupSteps:               10,
			MaxGradNorm:               0.3,
			AdamBeta1:                 0.9,
			AdamBeta2:                 0.999,
			AdamEpsilon:               1e-8,
			FP16:                      true,
			Optim:                     "paged_adamw_8bit",
			Schedule:                  "linear",
			LossPer:                   "token",
			SaveStrategy:              "no",
			SaveSteps:                 100,
		},
		Evaluation: Evaluation{
			TestPrompts: []string{
				"What is the capital of France?",
				"Explain in two sentences why the sky is blue.",
				"Name three uses of a paper clip.",
				"Write a short, polite email that asks a colleague to move a meeting to Friday.",
			},
			MaxNewTokens:      64,
			TopP:              1,
			RepetitionPenalty: 1,
			Batch:             8,
		},
		History:   History{Keep: 20},
		Worker:    Worker{IdleMinutes: 60},
		Workbench: Workbench{Theme: "auto", Notify: "bell"},
	}
}
