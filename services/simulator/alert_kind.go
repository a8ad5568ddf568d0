package simulator

// alertKind is a kind of alert that sensors raise. Titles, texts and engine
// names are those of Microsoft's public documentation; the values of alertType
// are made up, as no public source lists them.
type alertKind struct {
	title, alertType, engine, severity, intent, protocol string
	text                                                 string // %s: source, destination
	agent                                                bool   // from a micro agent on a device
}

var alertKinds = []alertKind{
	{
		title: "Internet Access Detected", alertType: "CyberX_PolicyViolation_InternetAccess",
		engine: "POLICY_VIOLATION", severity: "High", intent: "CommandAndControl", protocol: "BACnet",
		text: "Device %s tried to access an external IP address %s which is an address in the Internet and is not allowed by policy. It is recommended to notify the security officer of the incident.",
	},
	{
		title: "Illegal MODBUS Operation (Exception Raised by Master)", alertType: "CyberX_ProtocolViolation_ModbusException",
		engine: "PROTOCOL_VIOLATION", severity: "Medium", intent: "Unknown", protocol: "MODBUS",
		text: "A MODBUS master %s attempted to initiate an illegal operation against %s.\nThe operation is considered to be illegal since it incorporated function code #129 which should not be used by a master.\nIt is recommended to notify the security officer of the incident.",
	},
	{
		title: "Suspicion of Malicious Activity (WannaCry)", alertType: "CyberX_Malware_WannaCry",
		engine: "MALWARE", severity: "High", intent: "LateralMovement,Execution", protocol: "SMB",
		text: "Suspicious network activity was detected between %s and %s. Such behavior might be attributed to the \"WannaCry\" malware.",
	},
	{
		title: "Device is Suspected to be Disconnected (Unresponsive)", alertType: "CyberX_Operational_Unresponsive",
		engine: "OPERATIONAL", severity: "Low", intent: "Impact", protocol: "Siemens S7",
		text: "Device %s is suspected to be disconnected (unresponsive); %s still sends requests to it.",
	},
	{
		title: "Abnormal Periodicity in Communication Channel", alertType: "CyberX_Anomaly_Periodicity",
		engine: "ANOMALY", severity: "Informational", intent: "Discovery,Collection", protocol: "EtherNet/IP",
		text: "An abnormal periodicity was detected between %s and %s. It is recommended to check the devices.",
	},
	{
		title: "Unauthorized PLC Programming", alertType: "CyberX_PolicyViolation_PlcProgramming",
		engine: "POLICY_VIOLATION", severity: "High", intent: "Persistence,Impact", protocol: "Siemens S7 Plus",
		text: "The source device %s performed a read/write operation to the destination controller %s. The source device was not previously identified as a programming device (C:\\Program Files\\Siemens).",
	},
	{
		title: "Privileged container detected", alertType: "IoT_PrivilegedContainer",
		engine: "IoT Hub", severity: "Medium", intent: "PreAttack", protocol: "", agent: true,
		text: "Machine logs of %s indicate that a privileged Docker container is running; it was started from %s.",
	},
}

// Words for the padding of descriptions, some of them not ASCII.
var words = []string{
	"sensor", "controller", "traffic", "baseline", "segment", "operator", "firmware", "gateway", "learned", "policy",
	"Überwachung", "señal", "réseau", "датчик", "警告", "🏭", "turbine", "valve", "relay", "historian", "#12", "50%", "a/b",
}

var plainWords = []string{
	"sensor", "controller", "traffic", "baseline", "segment", "operator", "firmware", "gateway", "learned", "policy",
	"turbine", "valve", "relay", "historian", "station", "channel", "frequency", "pressure", "window", "threshold",
}
