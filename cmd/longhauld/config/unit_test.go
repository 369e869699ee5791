package config

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const unit = "../../../deploy/systemd/longhauld.service"

// maxExposure is what systemd-analyze may say of the unit at most. 9.6 is a
// unit without any hardening; the gateway's network device, raw sockets, and
// the QEMUs that it starts cost most of what is left.
const maxExposure = 4.5

// VMs outlive the gateway only if the unit says so.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Type=notify", "KillMode=process", "RuntimeDirectoryPreserve=yes", "ExecReload=/bin/kill -HUP $MAINPID",
		"ExecStart=longhauld --config " + DefaultPath, "NoNewPrivileges=yes", "ProtectSystem=strict",
	} {
		if !strings.Contains("\n"+string(text), "\n"+want+"\n") {
			t.Errorf("the unit does not say %s", want)
		}
	}
	for _, never := range []string{"PrivateTmp=yes", "SendSIGKILL=no", "MemoryDenyWriteExecute=yes"} {
		if strings.Contains("\n"+string(text), "\n"+never) {
			t.Errorf("the unit says %s", never)
		}
	}
}

func TestUnitIsHardened(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("there is no systemd-analyze here; TestUnit has looked at what matters most")
		return
	}
	out, err := exec.CommandContext(t.Context(), tool, "security", "--offline=true", "--no-pager", unit).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze security: %v\n%s", err, out)
	}
	m := regexp.MustCompile(`Overall exposure level for longhauld.service: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no exposure level in\n%s", out)
	}
	if level, err := strconv.ParseFloat(string(m[1]), 64); err != nil || level > maxExposure {
		t.Errorf("exposure level %s, at most %v", m[1], maxExposure)
	} else {
		t.Logf("exposure level %v", level)
	}
}
