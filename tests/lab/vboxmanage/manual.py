"""The commands that the stand-in knows, after VirtualBox 7's User Manual, chapter 8 («VBoxManage»).

Older spellings of options, which VirtualBox still accepts, follow those of the manual. Other options of the manual are
refused until they are needed.
"""

from __future__ import annotations

from tests.lab.vboxmanage.options import (
    FLAG,
    Command,
    choice,
    identity,
    number,
    on_off,
    rule,
    text,
    uart,
    uart_mode,
)

ATTACHMENTS = choice("none", "null", "nat", "bridged", "intnet", "hostonly", "natnetwork", "generic")
NIC_TYPES = choice("Am79C970A", "Am79C973", "82540EM", "82543GC", "82545EM", "virtio")
AUDIO = choice("none", "null", "default", "oss", "alsa", "pulse")
NEW_IN_7_1 = {"--platform-architecture", "--platform-arch", "--x86-pae", "--x86-long-mode"}
MEDIA = ("disk", "dvd", "floppy")
IMAGE = {"--format": choice("VDI", "VMDK", "VHD", "RAW"), "--variant": choice("Standard", "Fixed")}

COMMANDS: dict[str, Command] = {
    # «VBoxManage list»
    "list": Command({"--sorted -s": FLAG}, words=1),
    # «VBoxManage showvminfo»
    "showvminfo": Command({"--machinereadable": FLAG}, words=1),
    # «VBoxManage createvm»
    "createvm": Command(
        {
            "--name": text,
            "--groups": text,
            "--ostype": text,
            "--register": FLAG,
            "--basefolder": text,
            "--uuid": identity,
            "--platform-architecture --platform-arch": choice("x86", "arm"),
        }
    ),
    # «VBoxManage unregistervm»
    "unregistervm": Command({"--delete": FLAG, "--delete-all": FLAG}, words=1, unknown="unknown option"),
    # «VBoxManage modifyvm»
    "modifyvm": Command(
        {
            "--name": text,
            "--groups": text,
            "--description": text,
            "--memory": number,
            "--cpus": number,
            "--vram": number,
            "--ioapic": on_off,
            "--acpi": on_off,
            "--x86-pae --pae": on_off,
            "--x86-long-mode --long-mode --longmode": on_off,
            "--paravirt-provider --paravirtprovider": choice("none", "default", "legacy", "minimal", "hyperv", "kvm"),
            "--chipset": choice("piix3", "ich9"),
            "--firmware": choice("bios", "efi", "efi32", "efi64"),
            "--rtc-use-utc --rtcuseutc": on_off,
            "--graphicscontroller": choice("none", "vboxvga", "vmsvga", "vboxsvga"),
            "--boot#": choice("none", "floppy", "dvd", "disk", "net"),
            "--nic#": ATTACHMENTS,
            "--nic-type# --nictype#": NIC_TYPES,
            "--cable-connected# --cableconnected#": on_off,
            "--mac-address# --macaddress#": text,
            "--intnet#": text,
            "--nat-pf# --natpf#": rule,
            "--nat-dns-host-resolver# --natdnshostresolver#": on_off,
            "--nat-dns-proxy# --natdnsproxy#": on_off,
            "--nat-localhostreachable# --natlocalhostreachable#": on_off,
            "--uart#": uart,
            "--uart-mode# --uartmode#": uart_mode,
            "--uart-type# --uarttype#": choice("16450", "16550A", "16750"),
            "--audio-driver --audiodriver --audio": AUDIO,
            "--audio-enabled --audioenabled": on_off,
        },
        leading=True,
        option_error=1,
    ),
    # «VBoxManage startvm»
    "startvm": Command(
        {"--type": choice("gui", "headless", "sdl", "separate"), "--putenv": text}, words=1, unknown="unknown option"
    ),
    # «VBoxManage controlvm», whose arguments are not options
    "controlvm": Command(words=4, raw=True),
    # «VBoxManage storagectl»
    "storagectl": Command(
        {
            "--name": text,
            "--add": choice("ide", "sata", "scsi", "sas", "usb", "pcie", "virtio", "virtio-scsi"),
            "--controller": choice("IntelAhci", "PIIX3", "PIIX4", "ICH6", "LsiLogic", "NVMe", "VirtIO", "virtio-scsi"),
            "--portcount": number,
            "--hostiocache": on_off,
            "--bootable": on_off,
            "--remove": FLAG,
            "--rename": text,
        },
        leading=True,
    ),
    # «VBoxManage storageattach»
    "storageattach": Command(
        {
            "--storagectl": text,
            "--port": number,
            "--device": number,
            "--type": choice("hdd", "dvddrive"),
            "--medium": text,
            "--nonrotational": on_off,
            "--discard": on_off,
            "--forceunmount": FLAG,
        },
        leading=True,
        option_error=1,
    ),
    # «VBoxManage createmedium», «modifymedium», «clonemedium», «closemedium», «convertfromraw»
    "createmedium": Command(
        {"--filename": text, "--size": number, "--sizebyte": number, **IMAGE}, kinds=MEDIA, unknown="unknown option"
    ),
    "modifymedium": Command(
        {"--resize": number, "--resizebyte": number}, words=1, kinds=MEDIA, unknown="unknown option"
    ),
    "clonemedium": Command({**IMAGE, "--resize": number}, words=2, kinds=MEDIA, unknown="unknown option"),
    "closemedium": Command({"--delete": FLAG}, words=1, kinds=MEDIA, unknown="unknown option"),
    "convertfromraw": Command({**IMAGE, "--uuid": identity}, words=2),
    # «VBoxManage getextradata», «VBoxManage setextradata»
    "getextradata": Command(words=2, raw=True),
    "setextradata": Command(words=3, raw=True),
}
