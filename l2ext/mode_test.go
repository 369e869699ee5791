package l2ext_test

import (
	"flag"
	"testing"

	"github.com/longhaul-project/longhaul/l2ext"
)

// inMode runs the world's tests with segments of a mode.
func inMode(t *testing.T, m l2ext.Mode) {
	was := *mode
	check(t, flag.Set("l2ext.mode", string(m)))
	t.Cleanup(func() { check(t, flag.Set("l2ext.mode", was)) })
}

// TestExpressIsAsSecure runs what mode secure promises in mode secure-fast: who
// owns a MAC, who is answered for, what crosses, loops, what waits for a VM, and what a
// hostile peer can do is the same.
func TestExpressIsAsSecure(t *testing.T) {
	inMode(t, l2ext.SecureFast)
	for name, run := range map[string]func(*testing.T){
		"Answers": TestAnswers, "AddressChangesOwner": TestAddressChangesOwner, "Anycast": TestAnycast, "AnycastRogue": TestAnycastRogue,
		"BackDoor": TestBackDoor, "BackDoorThirdSite": TestBackDoorThirdSite, "TakenBeforeJoint": TestTakenBeforeJoint, "SecondGateway": TestSecondGateway, "Flapping": TestFlapping, "ForgedProbes": TestForgedProbes, "OwnLoop": TestOwnLoop,
		"Capture": TestCapture, "Echo": TestEcho, "EchoOfGuest": TestEchoOfGuest,
		"GatewaysAreNotBound": TestGatewaysAreNotBound, "HostilePeer": TestHostilePeer,
		"Listeners": TestListeners, "Policy": TestPolicy,
		"FirstFrameEndsParking": TestFirstFrameEndsParking, "MutedUntilItRuns": TestMutedUntilItRuns,
		"ParkedGoBack": TestParkedGoBack, "Parking": TestParking, "ParkingIsBounded": TestParkingIsBounded,
		"RevokeReachesAll": TestRevokeReachesAll, "ThreeSites": TestThreeSites,
		"DeafSite": TestDeafSite, "DigestMends": TestDigestMends, "PingPong": TestPingPong, "Twins": TestTwins,
		"TwinIsDropped": TestTwinIsDropped, "TwinsStayHome": TestTwinsStayHome,
	} {
		t.Run(name, run)
	}
}
