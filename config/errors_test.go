package config

import (
	"strings"
	"testing"
)

type errorCase struct{ text, want string }

// checkErrors holds the whole text of every error; want begins with a line end, for the carets' sake.
func checkErrors(t *testing.T, cases []errorCase) {
	t.Helper()
	for _, c := range cases {
		_, err := Parse("config.toml", []byte(c.text))
		if err == nil {
			t.Errorf("%q: no error, want%s", c.text, c.want)
		} else if got := err.Error(); got != strings.TrimPrefix(c.want, "\n") {
			t.Errorf("%q: got\n%s\nwant%s", c.text, got, c.want)
		}
	}
}

func TestUnknownKeys(t *testing.T) {
	checkErrors(t, []errorCase{
		{"[training]\nlearning_rat = 1e-4", `
config.toml:2:1: there is no key training.learning_rat; did you mean learning_rate?
    2 | learning_rat = 1e-4
      | ^^^^^^^^^^^^
allowed: in [training]: num_epochs, batch_size, learning_rate, gradient_accumulation_steps, warmup_steps, max_grad_norm, weight_decay, adam_beta1, adam_beta2, adam_epsilon, fp16, optim, schedule, loss_per, save_strategy, save_steps, gradient_checkpointing`},
		{"[training]\nlr=1", `
config.toml:2:1: there is no key training.lr
    2 | lr=1
      | ^^
allowed: in [training]: num_epochs, batch_size, learning_rate, gradient_accumulation_steps, warmup_steps, max_grad_norm, weight_decay, adam_beta1, adam_beta2, adam_epsilon, fp16, optim, schedule, loss_per, save_strategy, save_steps, gradient_checkpointing`},
		{`learning_rate = 1e-4`, `
config.toml:1:1: there is no key learning_rate; did you mean learning_rate in [training]?
    1 | learning_rate = 1e-4
      | ^^^^^^^^^^^^^
allowed: seed, device, [model], [paths], [quantization], [lora], [dataset], [prompt], [training], [evaluation], [upload], [history], [worker], [workbench], [keys]`},
		{"[lora]\nlora_alpha = 16", `
config.toml:2:1: there is no key lora.lora_alpha; did you mean alpha?
    2 | lora_alpha = 16
      | ^^^^^^^^^^
allowed: in [lora]: r, alpha, dropout, target_modules, base, merge`},
		{"[training]\ntest_prompts = []", `
config.toml:2:1: there is no key training.test_prompts; did you mean test_prompts in [evaluation]?
    2 | test_prompts = []
      | ^^^^^^^^^^^^
allowed: in [training]: num_epochs, batch_size, learning_rate, gradient_accumulation_steps, warmup_steps, max_grad_norm, weight_decay, adam_beta1, adam_beta2, adam_epsilon, fp16, optim, schedule, loss_per, save_strategy, save_steps, gradient_checkpointing`},
		{"[lora]\nseed = 1", `
config.toml:2:1: there is no key lora.seed; did you mean seed (above the first table)?
    2 | seed = 1
      | ^^^^
allowed: in [lora]: r, alpha, dropout, target_modules, base, merge`},
		{"[upload]\nlora = \"hf://phi-2-lora\"", `
config.toml:2:8: upload.lora cannot be "hf://phi-2-lora"
    2 | lora = "hf://phi-2-lora"
      |        ^^^^^^^^^^^^^^^^^
allowed: hf://org/name, s3://bucket/prefix, gdrive://folder or zip://path, or "" for nowhere`},
		{"[upload]\nlora = \"ftp://me/phi-2-lora\"", `
config.toml:2:8: upload.lora cannot be "ftp://me/phi-2-lora"
    2 | lora = "ftp://me/phi-2-lora"
      |        ^^^^^^^^^^^^^^^^^^^^^
allowed: hf://org/name, s3://bucket/prefix, gdrive://folder or zip://path, or "" for nowhere`},
		{"[upload]\nbase = \"s3://a/b\"\nlora = \"s3://a/b\"", `
config.toml:3:8: upload.lora cannot be "s3://a/b"
    3 | lora = "s3://a/b"
      |        ^^^^^^^^^^
allowed: a place of its own for each variant`},
		{"[lora]\nR = 8", `
config.toml:2:1: there is no key lora.R; did you mean r?
    2 | R = 8
      | ^
allowed: in [lora]: r, alpha, dropout, target_modules, base, merge`},
		{"[lora]\nq=1", `
config.toml:2:1: there is no key lora.q
    2 | q=1
      | ^
allowed: in [lora]: r, alpha, dropout, target_modules, base, merge`},
		{"[loar]\nr = 8", `
config.toml:1:2: there is no key loar; did you mean lora?
    1 | [loar]
      |  ^^^^
allowed: seed, device, [model], [paths], [quantization], [lora], [dataset], [prompt], [training], [evaluation], [upload], [history], [worker], [workbench], [keys]`},
		{`training.lora.r = 8`, `
config.toml:1:10: there is no key training.lora; did you mean lora in [paths]?
    1 | training.lora.r = 8
      |          ^^^^
allowed: in [training]: num_epochs, batch_size, learning_rate, gradient_accumulation_steps, warmup_steps, max_grad_norm, weight_decay, adam_beta1, adam_beta2, adam_epsilon, fp16, optim, schedule, loss_per, save_strategy, save_steps, gradient_checkpointing`},
		{`x = 1979-05-27 07:32:00 # d`, `
config.toml:1:1: there is no key x
    1 | x = 1979-05-27 07:32:00 # d
      | ^
allowed: seed, device, [model], [paths], [quantization], [lora], [dataset], [prompt], [training], [evaluation], [upload], [history], [worker], [workbench], [keys]`},
		{`"le arn" = 1`, `
config.toml:1:1: there is no key "le arn"
    1 | "le arn" = 1
      | ^^^^^^^^
allowed: seed, device, [model], [paths], [quantization], [lora], [dataset], [prompt], [training], [evaluation], [upload], [history], [worker], [workbench], [keys]`},
		{`"" = 1`, `
config.toml:1:1: there is no key ""
    1 | "" = 1
      | ^^
allowed: seed, device, [model], [paths], [quantization], [lora], [dataset], [prompt], [training], [evaluation], [upload], [history], [worker], [workbench], [keys]`},
		{`lora = { r = 8, aplha = 1 }`, `
config.toml:1:17: there is no key lora.aplha; did you mean alpha?
    1 | lora = { r = 8, aplha = 1 }
      |                 ^^^^^
allowed: in [lora]: r, alpha, dropout, target_modules, base, merge`},
	})
}

func TestWrongTypes(t *testing.T) {
	checkErrors(t, []errorCase{
		{`lora = 3`, `
config.toml:1:8: lora is a whole number
    1 | lora = 3
      |        ^
allowed: a table, [lora]`},
		{"[[lora]]\nr=8", `
config.toml:1:3: lora is a list
    1 | [[lora]]
      |   ^^^^
allowed: a table, [lora]`},
		{"[lora.r]\nx = 1", `
config.toml:1:7: lora.r is a table
    1 | [lora.r]
      |       ^
allowed: a whole number, without quotes`},
		{"[lora]\nr = 'eight'", `
config.toml:2:5: lora.r is a string
    2 | r = 'eight'
      |     ^^^^^^^
allowed: a whole number, without quotes`},
		{"[lora]\nr = 8.0", `
config.toml:2:5: lora.r is a number with a fraction
    2 | r = 8.0
      |     ^^^
allowed: a whole number, without quotes`},
		{"[lora]\nalpha = true", `
config.toml:2:9: lora.alpha is a truth value
    2 | alpha = true
      |         ^^^^
allowed: a number, without quotes`},
		{"[training]\nfp16='yes'", `
config.toml:2:6: training.fp16 is a string
    2 | fp16='yes'
      |      ^^^^^
allowed: true or false, without quotes`},
		{`device = 1979-05-27`, `
config.toml:1:10: device is a date
    1 | device = 1979-05-27
      |          ^^^^^^^^^^
allowed: a string in quotes, as in "text"`},
		{"[lora]\ntarget_modules='q_proj'", `
config.toml:2:16: lora.target_modules is a string
    2 | target_modules='q_proj'
      |                ^^^^^^^^
allowed: a list of strings, as in ["one", "two"]`},
		{"[lora]\ntarget_modules = ['q_proj', 3]", `
config.toml:2:29: lora.target_modules[1] is a whole number
    2 | target_modules = ['q_proj', 3]
      |                             ^
allowed: a string in quotes, as in "text"`},
		{"[training]\nlearning_rate = '1e-4'", `
config.toml:2:17: training.learning_rate is a string
    2 | learning_rate = '1e-4'
      |                 ^^^^^^
allowed: a number, without quotes`},
		{`seed = 1.5`, `
config.toml:1:8: seed is a number with a fraction
    1 | seed = 1.5
      |        ^^^
allowed: a whole number, without quotes`},
	})
}

func TestImpossibleValues(t *testing.T) {
	checkErrors(t, []errorCase{
		{"[lora]\nr = 0", `
config.toml:2:5: lora.r cannot be 0
    2 | r = 0
      |     ^
allowed: a whole number from 1 to 4096`},
		{`lora.r = -3`, `
config.toml:1:10: lora.r cannot be -3
    1 | lora.r = -3
      |          ^^
allowed: a whole number from 1 to 4096`},
		{`lora = { r = 8, alpha = nan }`, `
config.toml:1:25: lora.alpha cannot be nan
    1 | lora = { r = 8, alpha = nan }
      |                         ^^^
allowed: a number above 0, up to 1e6`},
		{"[lora]\nalpha = 0", `
config.toml:2:9: lora.alpha cannot be 0
    2 | alpha = 0
      |         ^
allowed: a number above 0, up to 1e6`},
		{"[lora]\ndropout = 1", `
config.toml:2:11: lora.dropout cannot be 1
    2 | dropout = 1
      |           ^
allowed: a number from 0 to below 1`},
		{"[lora]\ndropout = -0.1", `
config.toml:2:11: lora.dropout cannot be -0.1
    2 | dropout = -0.1
      |           ^^^^
allowed: a number from 0 to below 1`},
		{"[lora]\ntarget_modules = []", `
config.toml:2:18: lora.target_modules cannot be []
    2 | target_modules = []
      |                  ^^
allowed: at least one of "q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2" or "lm_head"`},
		{"[lora]\ntarget_modules = [\n  'q_proj', # q\n  'o_proj',\n]", `
config.toml:4:3: lora.target_modules[1] cannot be 'o_proj'
    4 |   'o_proj',
      |   ^^^^^^^^
allowed: "q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2" or "lm_head"`},
		{"[lora]\ntarget_modules=['q_proj','q_proj']", `
config.toml:2:26: lora.target_modules[1] cannot be 'q_proj'
    2 | target_modules=['q_proj','q_proj']
      |                          ^^^^^^^^
allowed: every module once`},
		{"[lora]\nbase = 'int8'", `
config.toml:2:8: lora.base cannot be 'int8'
    2 | base = 'int8'
      |        ^^^^^^
allowed: "fp16" or "nf4"`},
		{"[lora]\nmerge = 'nf4'", `
config.toml:2:9: lora.merge cannot be 'nf4'
    2 | merge = 'nf4'
      |         ^^^^^
allowed: "fp16" or "dequantized"`},
		{"[training]\nlearning_rate = inf", `
config.toml:2:17: training.learning_rate cannot be inf
    2 | learning_rate = inf
      |                 ^^^
allowed: a number above 0, up to 1; LoRA usually takes 1e-5 to 1e-2`},
		{"[training]\nlearning_rate = -5e-5", `
config.toml:2:17: training.learning_rate cannot be -5e-5
    2 | learning_rate = -5e-5
      |                 ^^^^^
allowed: a number above 0, up to 1; LoRA usually takes 1e-5 to 1e-2`},
		{"[training]\nlearning_rate = 5", `
config.toml:2:17: training.learning_rate cannot be 5
    2 | learning_rate = 5
      |                 ^
allowed: a number above 0, up to 1; LoRA usually takes 1e-5 to 1e-2`},
		{"[training]\nwarmup_steps = -1", `
config.toml:2:16: training.warmup_steps cannot be -1
    2 | warmup_steps = -1
      |                ^^
allowed: a whole number from 0 to 1000000000`},
		{"[training]\nbatch_size = 0", `
config.toml:2:14: training.batch_size cannot be 0
    2 | batch_size = 0
      |              ^
allowed: a whole number from 1 to 65536`},
		{"[training]\nnum_epochs = 0", `
config.toml:2:14: training.num_epochs cannot be 0
    2 | num_epochs = 0
      |              ^
allowed: a number above 0, up to 10000`},
		{"[training]\nmax_grad_norm = -0.3", `
config.toml:2:17: training.max_grad_norm cannot be -0.3
    2 | max_grad_norm = -0.3
      |                 ^^^^
allowed: a number from 0 (no clipping) to 1e6`},
		{"[training]\ngradient_accumulation_steps = 0", `
config.toml:2:31: training.gradient_accumulation_steps cannot be 0
    2 | gradient_accumulation_steps = 0
      |                               ^
allowed: a whole number from 1 to 65536`},
		{"[training]\nweight_decay = nan", `
config.toml:2:16: training.weight_decay cannot be nan
    2 | weight_decay = nan
      |                ^^^
allowed: a number from 0 to 1`},
		{"[training]\nadam_beta2 = 1.0", `
config.toml:2:14: training.adam_beta2 cannot be 1.0
    2 | adam_beta2 = 1.0
      |              ^^^
allowed: a number from 0 to below 1`},
		{"[training]\nadam_epsilon = 0.0", `
config.toml:2:16: training.adam_epsilon cannot be 0.0
    2 | adam_epsilon = 0.0
      |                ^^^
allowed: a number above 0, up to 1`},
		{"[training]\noptim = 'sgd'", `
config.toml:2:9: training.optim cannot be 'sgd'
    2 | optim = 'sgd'
      |         ^^^^^
allowed: "paged_adamw_8bit" or "adamw"`},
		{"[training]\nschedule = 'step'", `
config.toml:2:12: training.schedule cannot be 'step'
    2 | schedule = 'step'
      |            ^^^^^^
allowed: "linear", "cosine" or "constant"`},
		{"[training]\nloss_per = 'row'", `
config.toml:2:12: training.loss_per cannot be 'row'
    2 | loss_per = 'row'
      |            ^^^^^
allowed: "token" or "micro_batch"`},
		{"[training]\nsave_strategy = 'epoch'", `
config.toml:2:17: training.save_strategy cannot be 'epoch'
    2 | save_strategy = 'epoch'
      |                 ^^^^^^^
allowed: "no" or "steps"`},
		{"[training]\nsave_steps = 0", `
config.toml:2:14: training.save_steps cannot be 0
    2 | save_steps = 0
      |              ^
allowed: a whole number from 1 to 1000000000`},
		{`seed = -1`, `
config.toml:1:8: seed cannot be -1
    1 | seed = -1
      |        ^^
allowed: a whole number, 0 or above`},
		{`device = 'gpu'`, `
config.toml:1:10: device cannot be 'gpu'
    1 | device = 'gpu'
      |          ^^^^^
allowed: "auto", "cpu" or "cuda"`},
		{"[model]\nname = 'phi-2'", `
config.toml:2:8: model.name cannot be 'phi-2'
    2 | name = 'phi-2'
      |        ^^^^^^^
allowed: a hub id as in "microsoft/phi-2", a folder beginning with /, ./ or ../, or "embedded"`},
		{"[model]\nname = ''", `
config.toml:2:8: model.name cannot be ''
    2 | name = ''
      |        ^^
allowed: a hub id as in "microsoft/phi-2", a folder beginning with /, ./ or ../, or "embedded"`},
		{"[model]\nname = '~/phi-2'", `
config.toml:2:8: model.name cannot be '~/phi-2'
    2 | name = '~/phi-2'
      |        ^^^^^^^^^
allowed: a hub id as in "microsoft/phi-2", a folder beginning with /, ./ or ../, or "embedded"`},
		{"[model]\nname = 'a/b/c'", `
config.toml:2:8: model.name cannot be 'a/b/c'
    2 | name = 'a/b/c'
      |        ^^^^^^^
allowed: a hub id as in "microsoft/phi-2", a folder beginning with /, ./ or ../, or "embedded"`},
		{"[model]\nrevision = '../x'", `
config.toml:2:12: model.revision cannot be '../x'
    2 | revision = '../x'
      |            ^^^^^^
allowed: a branch, tag or commit, or "" for the default branch`},
		{"[model]\nname = './x'\nrevision='a'", `
config.toml:3:10: model.revision cannot be 'a'
    3 | revision='a'
      |          ^^^
allowed: "", because only a model of the hub has revisions`},
		{"[quantization]\nload_in_4bit=false", `
config.toml:2:14: quantization.load_in_4bit cannot be false
    2 | load_in_4bit=false
      |              ^^^^^
allowed: true; both quantized variants are 4-bit`},
		{"[quantization]\nquant_type='fp4'", `
config.toml:2:12: quantization.quant_type cannot be 'fp4'
    2 | quant_type='fp4'
      |            ^^^^^
allowed: "nf4"`},
		{"[quantization]\ncompute_dtype='int8'", `
config.toml:2:15: quantization.compute_dtype cannot be 'int8'
    2 | compute_dtype='int8'
      |               ^^^^^^
allowed: "float16", "bfloat16" or "float32"`},
		{"[dataset]\nname='dolly'", `
config.toml:2:6: dataset.name cannot be 'dolly'
    2 | name='dolly'
      |      ^^^^^^^
allowed: a hub id as in "databricks/databricks-dolly-15k", or a file ending in .jsonl or .parquet`},
		{"[dataset]\nname='rows.jsonl'\nrevision='v1'", `
config.toml:3:10: dataset.revision cannot be 'v1'
    3 | revision='v1'
      |          ^^^^
allowed: "", because only a dataset of the hub has revisions`},
		{"[dataset]\nnum_samples=-1", `
config.toml:2:13: dataset.num_samples cannot be -1
    2 | num_samples=-1
      |             ^^
allowed: a whole number from 0 to 1000000000`},
		{"[dataset]\nheld_out=-1", `
config.toml:2:10: dataset.held_out cannot be -1
    2 | held_out=-1
      |          ^^
allowed: a whole number from 0 to 1000000`},
		{"[dataset]\nheld_out_file='test.csv'", `
config.toml:2:15: dataset.held_out_file cannot be 'test.csv'
    2 | held_out_file='test.csv'
      |               ^^^^^^^^^^
allowed: a file ending in .jsonl or .parquet, or "" to take the rows from the dataset`},
		{"[dataset]\nmax_length = 1", `
config.toml:2:14: dataset.max_length cannot be 1
    2 | max_length = 1
      |              ^
allowed: a whole number from 2 to 1000000`},
		{"[dataset]\nmax_length = 1000001", `
config.toml:2:14: dataset.max_length cannot be 1000001
    2 | max_length = 1000001
      |              ^^^^^^^
allowed: a whole number from 2 to 1000000`},
		{"[dataset]\npadding=''", `
config.toml:2:9: dataset.padding cannot be ''
    2 | padding=''
      |         ^^
allowed: "max_length" or "longest"`},
		{"[dataset]\nlabels='none'", `
config.toml:2:8: dataset.labels cannot be 'none'
    2 | labels='none'
      |        ^^^^^^
allowed: "all", "seed" or "response"`},
		{"[prompt]\ntemplate = \"\"\"\nDo\n{input}\n\"\"\"", `
config.toml:2:12: prompt.template cannot be """⏎Do⏎{input}⏎"""
    2 | template = """
      |            ^^^
allowed: a text with {instruction} in it once, and {context} where the context goes`},
		{"[prompt]\ntemplate = '{instruction} {response}'", `
config.toml:2:12: prompt.template cannot be '{instruction} {response}'
    2 | template = '{instruction} {response}'
      |            ^^^^^^^^^^^^^^^^^^^^^^^^^^
allowed: the placeholders {instruction} and {context} only, not {response}; the response follows the template`},
		{"[prompt]\ntemplate = '{instruction}{context}{context}'", `
config.toml:2:12: prompt.template cannot be '{instruction}{context}{context}'
    2 | template = '{instruction}{context}{context}'
      |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
allowed: a text with {context} in it once at most`},
		{"[prompt]\ncontext = 'none'", `
config.toml:2:11: prompt.context cannot be 'none'
    2 | context = 'none'
      |           ^^^^^^
allowed: a text with {context} in it once`},
		{"[evaluation]\ntest_prompts = ['ok', ' ']", `
config.toml:2:23: evaluation.test_prompts[1] cannot be ' '
    2 | test_prompts = ['ok', ' ']
      |                       ^^^
allowed: a text that is not empty`},
		{"[evaluation]\nmax_new_tokens = 0", `
config.toml:2:18: evaluation.max_new_tokens cannot be 0
    2 | max_new_tokens = 0
      |                  ^
allowed: a whole number from 1 to 1000000`},
		{"[evaluation]\ntemperature = -1", `
config.toml:2:15: evaluation.temperature cannot be -1
    2 | temperature = -1
      |               ^^
allowed: a number from 0 (greedy) to 100`},
		{"[evaluation]\ntop_k = -1", `
config.toml:2:9: evaluation.top_k cannot be -1
    2 | top_k = -1
      |         ^^
allowed: a whole number from 0 to 10000000`},
		{"[evaluation]\ntop_p = 0", `
config.toml:2:9: evaluation.top_p cannot be 0
    2 | top_p = 0
      |         ^
allowed: a number above 0, up to 1 (all tokens)`},
		{"[evaluation]\nrepetition_penalty = 0", `
config.toml:2:22: evaluation.repetition_penalty cannot be 0
    2 | repetition_penalty = 0
      |                      ^
allowed: a number above 0, up to 100; 1 is no penalty`},
		{"[evaluation]\nbatch = 0", `
config.toml:2:9: evaluation.batch cannot be 0
    2 | batch = 0
      |         ^
allowed: a whole number from 1 to 65536`},
		{"[history]\nkeep = -1", `
config.toml:2:8: history.keep cannot be -1
    2 | keep = -1
      |        ^^
allowed: a whole number from 0 to 10000`},
	})
}

func TestClashingPaths(t *testing.T) {
	checkErrors(t, []errorCase{
		{"[paths]\nlora = 'models/phi-2-base'", `
config.toml:2:8: paths.lora cannot be 'models/phi-2-base'
    2 | lora = 'models/phi-2-base'
      |        ^^^^^^^^^^^^^^^^^^^
allowed: paths that keep paths.lora and paths.base apart; neither may hold the other`},
		{"[paths]\nbase = 'models'", `
config.toml:2:8: paths.base cannot be 'models'
    2 | base = 'models'
      |        ^^^^^^^^
allowed: paths that keep paths.quantized and paths.base apart; neither may hold the other`},
		{"[paths]\nquantized = 'q'\nlora = './x/../q/lora'", `
config.toml:3:8: paths.lora cannot be './x/../q/lora'
    3 | lora = './x/../q/lora'
      |        ^^^^^^^^^^^^^^^
allowed: paths that keep paths.lora and paths.quantized apart; neither may hold the other`},
		{"[paths]\nlora = 'q/lora'\nquantized = 'q'", `
config.toml:3:13: paths.quantized cannot be 'q'
    3 | quantized = 'q'
      |             ^^^
allowed: paths that keep paths.lora and paths.quantized apart; neither may hold the other`},
		{"[paths]\nresults = ''", `
config.toml:2:11: paths.results cannot be ''
    2 | results = ''
      |           ^^
allowed: a path, absolute or relative to the workspace, without ~, control characters or spaces around it`},
		{"[paths]\nresults = '.'", `
config.toml:2:11: paths.results cannot be '.'
    2 | results = '.'
      |           ^^^
allowed: a folder that is not the workspace, above it, its config.toml or in its .quartet`},
		{"[paths]\nresults = '..'", `
config.toml:2:11: paths.results cannot be '..'
    2 | results = '..'
      |           ^^^^
allowed: a folder that is not the workspace, above it, its config.toml or in its .quartet`},
		{"[paths]\nresults = '/'", `
config.toml:2:11: paths.results cannot be '/'
    2 | results = '/'
      |           ^^^
allowed: a folder that is not the workspace, above it, its config.toml or in its .quartet`},
		{"[paths]\nresults = '.quartet/x'", `
config.toml:2:11: paths.results cannot be '.quartet/x'
    2 | results = '.quartet/x'
      |           ^^^^^^^^^^^^
allowed: a folder that is not the workspace, above it, its config.toml or in its .quartet`},
		{"[paths]\nbase = 'config.toml'", `
config.toml:2:8: paths.base cannot be 'config.toml'
    2 | base = 'config.toml'
      |        ^^^^^^^^^^^^^
allowed: a folder that is not the workspace, above it, its config.toml or in its .quartet`},
		{"[paths]\nbase = ' a'", `
config.toml:2:8: paths.base cannot be ' a'
    2 | base = ' a'
      |        ^^^^
allowed: a path, absolute or relative to the workspace, without ~, control characters or spaces around it`},
		{"[paths]\nbase = '~/base'", `
config.toml:2:8: paths.base cannot be '~/base'
    2 | base = '~/base'
      |        ^^^^^^^^
allowed: a path, absolute or relative to the workspace, without ~, control characters or spaces around it`},
		{"[paths]\nbase = \"a\\u0000b\"", `
config.toml:2:8: paths.base cannot be "a\u0000b"
    2 | base = "a\u0000b"
      |        ^^^^^^^^^^
allowed: a path, absolute or relative to the workspace, without ~, control characters or spaces around it`},
		{"[model]\nname='./models/phi-2-lora/sub'", `
config.toml:2:6: model.name cannot be './models/phi-2-lora/sub'
    2 | name='./models/phi-2-lora/sub'
      |      ^^^^^^^^^^^^^^^^^^^^^^^^^
allowed: paths that keep model.name and paths.lora apart; neither may hold the other`},
		{"[dataset]\nname='results/a.jsonl'", `
config.toml:2:6: dataset.name cannot be 'results/a.jsonl'
    2 | name='results/a.jsonl'
      |      ^^^^^^^^^^^^^^^^^
allowed: paths that keep dataset.name and paths.results apart; neither may hold the other`},
		{"[dataset]\nname = 'data/a.jsonl'\nheld_out_file = 'data/b.jsonl'\n[paths]\nresults = 'data'", `
config.toml:5:11: paths.results cannot be 'data'
    5 | results = 'data'
      |           ^^^^^^
allowed: paths that keep dataset.held_out_file and paths.results apart; neither may hold the other`},
	})
}

func TestBrokenFiles(t *testing.T) {
	checkErrors(t, []errorCase{
		{"[lora\nr=1", `
config.toml:1:6: expected '.' or ']' to end table name, but got '\n' instead
    1 | [lora
      |      ^`},
		{"[lora]\nr=", `
config.toml:2:2: unexpected EOF; expected value
    2 | r=
      |  ^`},
		{"[lora]\nr=8\nr=9", `
config.toml:3:1: Key 'lora.r' has already been defined.
    3 | r=9
      | ^`},
		{"[lora]\nr = 8 # '\n[lora]\n", `
config.toml:3:2: Key 'lora' has already been defined.
    3 | [lora]
      |  ^^^^`},
		{`device = 'cpu`, `
config.toml:1:13: unexpected EOF; expected "'"
    1 | device = 'cpu
      |             ^`},
		{`x = "\q"`, `
config.toml:1:6: invalid escape in string '\q'
    1 | x = "\q"
      |      ^^`},
		{`seed = 99999999999999999999`, `
config.toml:1:8: 99999999999999999999 is out of range for int64
    1 | seed = 99999999999999999999
      |        ^^^^^^^^^^^^^^^^^^^^`},
		{"device = \"a\x1b[31m\"", `
config.toml:1:11: TOML files cannot contain control characters: '0x1b'
    1 | device = "a\x1b[31m"
      |           ^`},
		{"# \xff", `
config.toml:1:3: the file is not UTF-8 text
    1 | # �
      |   ^
allowed: a TOML file, saved as UTF-8`},
		{"\x00a", `
config.toml:1:1: files cannot contain NULL bytes; probably using UTF-16; TOML files must be UTF-8
    1 | \x00a
      | ^^^^`},
		{`a = [[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]`, `
config.toml:1:13: a key is too long, or nested too deeply
    1 | a = [[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]
      |             ^
allowed: tables of plain keys, as in config.toml`},
		{`a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t = 1`, `
config.toml:1:17: a key is too long, or nested too deeply
    1 | a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t = 1
      |                 ^
allowed: tables of plain keys, as in config.toml`},
	})
}

func TestShownLines(t *testing.T) {
	checkErrors(t, []errorCase{
		{"[lora]\n\tr = 0", `
config.toml:2:6: lora.r cannot be 0
    2 |     r = 0
      |         ^
allowed: a whole number from 1 to 4096`},
		{"[lora]\r\nr = 0\r\n", `
config.toml:2:5: lora.r cannot be 0
    2 | r = 0
      |     ^
allowed: a whole number from 1 to 4096`},
		{"device = \"\"\"\nabc\n\"\"\"", `
config.toml:1:10: device cannot be """⏎abc⏎"""
    1 | device = """
      |          ^^^
allowed: "auto", "cpu" or "cuda"`},
		{"\ufeffdevice = 'é\u202e\u200b'", `
config.toml:1:10: device cannot be 'é\u202e\u200b'
    1 | device = 'é\u202e\u200b'
      |          ^^^^^^^^^^^^^^^
allowed: "auto", "cpu" or "cuda"`},
		{`lora.x = 1 # 鬼`, `
config.toml:1:6: there is no key lora.x
    1 | lora.x = 1 # 鬼
      |      ^
allowed: in [lora]: r, alpha, dropout, target_modules, base, merge`},
		{`evaluation.test_prompts = ['aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb']`, `
config.toml:1:142: evaluation.test_prompts[1] cannot be ''
    1 | …aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb…
      |                                                    ^^
allowed: a text that is not empty`},
		{`device = 'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc'`, `
config.toml:1:10: device cannot be 'ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc…
    1 | device = 'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc…
      |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
allowed: "auto", "cpu" or "cuda"`},
	})
}
