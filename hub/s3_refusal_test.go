package hub

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// s3Settings points the environment of a test at a server.
func s3Settings(t *testing.T, endpoint string) {
	t.Helper()
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "verysecret", "AWS_SESSION_TOKEN": "", "AWS_REGION": "us-east-1",
		"AWS_ENDPOINT_URL_S3": endpoint, "AWS_PROFILE": "", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "2"} {
		t.Setenv(name, value)
	}
}

// TestS3RefusalBehindBrokenConnection has a server that breaks the connection of whatever sends content, as one looks that answers early
// and hangs up, and words its answers to other requests.
func TestS3RefusalBehindBrokenConnection(t *testing.T) {
	broken := "upload weights.bin to s3://box/run: the connection failed; check the network"
	for _, c := range []struct {
		status     int
		code, want string
	}{
		{403, "InvalidAccessKeyId", "upload weights.bin to s3://box/run: the server does not take the credentials; check AWS_ACCESS_KEY_ID"},
		{404, "NoSuchBucket", "upload weights.bin to s3://box/run: there is no bucket box; check its name, or make it"},
		{404, "NoSuchUpload", broken},
		{503, "SlowDown", broken},
	} {
		for _, size := range []int{1000, 12 << 20} {
			t.Run(fmt.Sprint(c.code, size), func(t *testing.T) {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch {
					case r.Method == http.MethodPut:
						conn, _, err := w.(http.Hijacker).Hijack()
						if err == nil {
							conn.(*net.TCPConn).SetLinger(0)
							conn.Close()
						}
					case r.Method == http.MethodPost:
						fmt.Fprint(w, `<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>`)
					case r.Method == http.MethodHead:
						w.WriteHeader(http.StatusNotFound)
					default:
						w.WriteHeader(c.status)
						fmt.Fprintf(w, `<Error><Code>%s</Code></Error>`, c.code)
					}
				}))
				t.Cleanup(server.Close)
				s3Settings(t, server.URL)
				s, err := OpenS3(t.Context(), "s3://box/run", t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				name, _ := randomFile(t, 5, size)
				if err := s.Put(t.Context(), "weights.bin", name, func(int64) {}); err == nil || !strings.HasPrefix(err.Error(), c.want) {
					t.Errorf("%v, not %s", err, c.want)
				}
			})
		}
	}
}
