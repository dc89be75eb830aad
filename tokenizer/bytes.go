package tokenizer

// byteRune is GPT-2's map of bytes to printable characters, in which vocabularies are written; runeByte is its inverse,
// -1 for a character outside the map.
var (
	byteRune [256]rune
	runeByte [256 + 68]int16
)

func init() {
	for i := range runeByte {
		runeByte[i] = -1
	}
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if !(33 <= b && b <= 126 || 161 <= b && b <= 172 || 174 <= b) {
			r = next
			next++
		}
		byteRune[b] = r
		runeByte[r] = int16(b)
	}
}

// tokenBytes is what a token of the vocabulary stands for. A token with a character outside the map stands for its own UTF-8.
func tokenBytes(token string) string {
	plain := true // a token of ASCII without blanks stands for itself
	for i := 0; i < len(token) && plain; i++ {
		plain = 33 <= token[i] && token[i] <= 126
	}
	if plain {
		return token
	}
	out := make([]byte, 0, len(token))
	for _, r := range token {
		if int(r) >= len(runeByte) || runeByte[r] < 0 {
			return token
		}
		out = append(out, byte(runeByte[r]))
	}
	return string(out)
}
