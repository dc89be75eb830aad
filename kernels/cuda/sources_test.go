package cuda

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// kernel is what a .cu file declares as `extern "C" __global__ void name(parameters)`.
type kernel struct {
	file       string
	parameters []parameter
}

type parameter struct{ kind, name string }

func (p parameter) pointer() bool  { return strings.HasSuffix(p.kind, "*") }
func (p parameter) String() string { return p.kind + " " + p.name }

// sources is the kernels of all .cu files by name, macros expanded.
func sources(t testing.TB) map[string]kernel {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var parsed = sync.OnceValues(func() (map[string]kernel, error) {
	headers, _ := filepath.Glob("*.cuh")
	files, _ := filepath.Glob("*.cu")
	all := map[string]kernel{}
	for _, file := range files {
		m := macros{}
		var text string
		for _, f := range append(headers, file) {
			data, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			text = m.preprocess(string(data))
		}
		for _, d := range declaration.FindAllStringSubmatch(text, -1) {
			k := kernel{file: file}
			for _, p := range strings.Split(d[2], ",") {
				if p = strings.TrimSpace(p); p != "" {
					k.parameters = append(k.parameters, parseParameter(p))
				}
			}
			all[d[1]] = k
		}
	}
	return all, nil
})

var (
	declaration = regexp.MustCompile(`extern "C" __global__ void\s+(?:__launch_bounds__\s*\([^()]*\)\s*)?(\w+)\s*\(([^)]*)\)`)
	comment     = regexp.MustCompile(`(?s)//[^\n]*|/\*.*?\*/`)
	define      = regexp.MustCompile(`^#\s*define\s+(\w+)(?:\(([^)]*)\))?\s*(.*)$`)
	paste       = regexp.MustCompile(`\s*##\s*`)
	identifier  = regexp.MustCompile(`"[^"\n]*"|\w+`)
	unqualified = regexp.MustCompile(`\b(const|__restrict__|__grid_constant__)\b`)
)

// parseParameter divides a declaration into its type, without qualifiers, and its name.
func parseParameter(text string) parameter {
	text = unqualified.ReplaceAllString(text, "")
	at := strings.LastIndexAny(text, "* ") + 1
	kind := strings.Join(strings.Fields(text[:at]), " ")
	return parameter{strings.ReplaceAll(kind, " *", "*"), text[at:]}
}

// macros are a file's #defines: the part of C's preprocessor that the kernels' names are made with.
type macros map[string]macro

type macro struct {
	parameters []string // nil for one that is not called
	body       string
}

// preprocess takes the definitions out of a text and expands the rest.
func (m macros) preprocess(text string) string {
	text = strings.ReplaceAll(comment.ReplaceAllString(text, " "), "\\\n", " ")
	var out, block strings.Builder
	flush := func() {
		out.WriteString(m.expand(block.String()))
		block.Reset()
	}
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		if !strings.HasPrefix(trimmed, "#") {
			block.WriteString(line)
			continue
		}
		flush()
		if d := define.FindStringSubmatch(trimmed); d != nil {
			defined := macro{body: d[3]}
			if strings.HasPrefix(trimmed[strings.Index(trimmed, d[1])+len(d[1]):], "(") {
				defined.parameters = arguments(d[2])
			}
			m[d[1]] = defined
		}
	}
	flush()
	return out.String()
}

// expand replaces the macros in a text, and those in what they become. A macro is not expanded inside itself.
func (m macros) expand(text string) string {
	var out strings.Builder
	for {
		at := identifier.FindStringIndex(text)
		if at == nil {
			out.WriteString(text)
			return out.String()
		}
		name, rest := text[at[0]:at[1]], text[at[1]:]
		out.WriteString(text[:at[0]])
		text = rest
		defined, ok := m[name]
		if !ok {
			out.WriteString(name)
			continue
		}
		body := defined.body
		if defined.parameters != nil {
			inside, after, called := parenthesised(rest)
			if !called {
				out.WriteString(name)
				continue
			}
			text = after
			body = substitute(body, defined.parameters, arguments(inside))
		}
		inner := macros{}
		for n, d := range m {
			if n != name {
				inner[n] = d
			}
		}
		out.WriteString(inner.expand(body))
	}
}

// substitute puts arguments in the place of parameters and pastes what ## joins.
func substitute(body string, parameters, args []string) string {
	return paste.ReplaceAllString(identifier.ReplaceAllStringFunc(body, func(word string) string {
		for i, p := range parameters {
			if word == p && i < len(args) {
				return args[i]
			}
		}
		return word
	}), "")
}

// parenthesised is what stands between a text's first parenthesis and the one that closes it, if it begins with one.
func parenthesised(text string) (inside, after string, ok bool) {
	trimmed := strings.TrimLeft(text, " \t\n")
	if !strings.HasPrefix(trimmed, "(") {
		return "", text, false
	}
	depth := 0
	for i, c := range trimmed {
		switch c {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return trimmed[1:i], trimmed[i+1:], true
			}
		}
	}
	return "", text, false
}

// arguments divides at the commas that no parentheses hold.
func arguments(text string) []string {
	out, depth, from := []string{}, 0, 0
	for i, c := range text {
		switch c {
		case '(', '<', '{':
			depth++
		case ')', '>', '}':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, strings.TrimSpace(text[from:i]))
				from = i + 1
			}
		}
	}
	return append(out, strings.TrimSpace(text[from:]))
}

func TestSources(t *testing.T) {
	m := macros{}
	text := m.preprocess("#define EACH(K) K(_a, float) \\\n K(_b, half)\n#define K(N, T) extern \"C\" __global__ void __launch_bounds__(32) op##N(T *x, const T *__restrict__ y, long long n) {}\n" +
		"// EACH(L)\nEACH(K)\n#define K2(N) K(N##_c, int)\nK2(_d)\n")
	var got []string
	for _, d := range declaration.FindAllStringSubmatch(text, -1) {
		got = append(got, d[1]+"("+d[2]+")")
	}
	want := "op_a(float *x, const float *__restrict__ y, long long n) op_b(half *x, const half *__restrict__ y, long long n) " +
		"op_d_c(int *x, const int *__restrict__ y, long long n)"
	if strings.Join(got, " ") != want {
		t.Errorf("kernels %q, want %s", got, want)
	}
	for text, want := range map[string]parameter{
		"const f16 *__restrict__ x": {"f16*", "x"}, "long long n": {"long long", "n"}, "float *out": {"float*", "out"}, "unsigned k": {"unsigned", "k"},
	} {
		if p := parseParameter(text); p != want {
			t.Errorf("%q is %q %q", text, p.kind, p.name)
		}
	}
	for _, name := range []string{"layer_norm_f16_bf16", "copy_f32_bf16", "gather_16", "sum_parts", "cross_entropy_f16"} {
		if k, ok := sources(t)[name]; !ok || len(k.parameters) == 0 {
			t.Errorf("kernel %s is not found", name)
		}
	}
}
