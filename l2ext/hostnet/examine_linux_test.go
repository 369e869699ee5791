package hostnet

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// TestExamine looks at this machine, on which the other tests pass.
func TestExamine(t *testing.T) {
	nstest.NeedRoot(t)
	findings, err := Examine(t.Context())
	if err != nil || len(findings) > 0 {
		t.Errorf("findings %v, %v", findings, err)
	}
}

func TestExplain(t *testing.T) {
	for err, want := range map[error]string{
		unix.EPERM:      "CAP_NET_ADMIN",
		unix.EOPNOTSUPP: "module",
		unix.EBUSY:      "busy",
	} {
		if got := explain(fmt.Errorf("making device x: %w", err)); !strings.Contains(got.Error(), want) || !errors.Is(got, err) {
			t.Errorf("%v is explained as %v", err, got)
		}
	}
}
