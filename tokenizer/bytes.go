package tokenizer

// byteRune is GPT-2's map of bytes to printable characters, in which vocabularies are written; runeByte is its inverse.
var (
	byteRune [256]rune
	runeByte = map[rune]byte{}
)

func init() {
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if !(33 <= b && b <= 126 || 161 <= b && b <= 172 || 174 <= b) {
			r = next
			next++
		}
		byteRune[b] = r
		runeByte[r] = byte(b)
	}
}

// tokenBytes is what a token of the vocabulary stands for. A token with a character outside the map stands for its own UTF-8.
func tokenBytes(token string) string {
	out := make([]byte, 0, len(token))
	for _, r := range token {
		b, ok := runeByte[r]
		if !ok {
			return token
		}
		out = append(out, b)
	}
	return string(out)
}
