// Where a message is written. Enter sends; files are dropped, pasted or chosen.
const { h } = Vue;

export default {
  props: { label: String, busy: Boolean, told: Number, back: Object, address: String },
  watch: {
    told() {
      this.sent = false;
    },
    "back.number"() {
      if (!this.text) this.text = this.back.text;
      this.files = [...this.back.files, ...this.files];
      this.$nextTick(this.fit);
    },
    address(address) {
      history.replaceState(null, "", address);
    },
  },
  emits: ["send", "stop"],
  data() {
    return { text: "", files: [], over: false, problem: "", sent: false, sending: 0 };
  },
  mounted() {
    this.$refs.text.focus();
    document.addEventListener("compose", this.given);
  },
  beforeUnmount() {
    document.removeEventListener("compose", this.given);
  },
  methods: {
    given(event) {
      this.text = event.detail;
      this.$nextTick(this.fit);
      this.$refs.text.focus();
    },
    fit() {
      const box = this.$refs.text;
      box.style.height = "auto";
      box.style.height = `${Math.min(box.scrollHeight, window.innerHeight * 0.4)}px`;
    },
    send() {
      if (this.busy || this.sent || this.sending || (!this.text.trim() && !this.files.length)) return;
      this.sent = true;
      document.dispatchEvent(new CustomEvent("to-end"));
      this.$emit("send", { text: this.text, files: this.files });
      this.text = "";
      this.files = [];
      this.problem = "";
      this.$nextTick(this.fit);
    },
    async take(files) {
      for (const file of files) {
        this.sending += 1;
        try {
          const answer = await fetch(`/uploads?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
          const said = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
          if (answer.ok) this.files.push(said);
          else this.problem = `${file.name}: ${said.error}`;
        } catch {
          this.problem = `${file.name}: the server does not answer`;
        }
        this.sending -= 1;
      }
    },
  },
  render() {
    const files = this.files.map((file, at) =>
      h("li", { class: "chip" }, [
        file.name,
        h(
          "button",
          { type: "button", "aria-label": `Remove ${file.name}`, onClick: () => this.files.splice(at, 1) },
          "×",
        ),
      ]),
    );
    const text = h("textarea", {
      ref: "text",
      rows: 1,
      value: this.text,
      "aria-label": this.label,
      placeholder: this.label,
      onInput: (event) => {
        this.text = event.target.value;
        this.fit();
      },
      onKeydown: (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.isComposing) {
          event.preventDefault();
          this.send();
        }
      },
      onPaste: (event) => {
        if (event.clipboardData.files.length) {
          event.preventDefault();
          this.take(event.clipboardData.files);
        }
      },
    });
    const choose = h("input", {
      ref: "choose",
      type: "file",
      multiple: true,
      class: "hidden",
      tabindex: -1,
      "aria-label": "Files to attach",
      onChange: (event) => {
        this.take([...event.target.files]);
        event.target.value = "";
      },
    });
    const clip = h(
      "button",
      { type: "button", class: "button quiet", "aria-label": "Attach files", title: "Attach files", onClick: () => this.$refs.choose.click() },
      "+",
    );
    const act = this.busy
      ? h("button", { type: "button", class: "button stop", "data-key": "escape", title: "Stop (Esc)", onClick: () => this.$emit("stop") }, "Stop")
      : h("button", { type: "button", class: "button primary send", onClick: this.send, disabled: !this.text.trim() && !this.files.length }, "Send");
    return h(
      "div",
      {
        class: ["composer", { over: this.over }],
        onDragover: (event) => {
          event.preventDefault();
          this.over = true;
        },
        onDragleave: () => (this.over = false),
        onDrop: (event) => {
          event.preventDefault();
          this.over = false;
          this.take(event.dataTransfer.files);
        },
      },
      [
        files.length ? h("ul", { class: "files", "aria-label": "Attached" }, files) : null,
        this.sending ? h("p", { class: "small soft", role: "status" }, "Sending a file…") : null,
        this.problem ? h("p", { class: "problem", role: "alert" }, this.problem) : null,
        h("div", { class: "line" }, [clip, choose, text, act]),
      ],
    );
  },
};
