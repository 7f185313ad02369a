"""More words of the tiny world: how requests are worded, and what stands in the two corpora.

The words of answers, which the judge knows, are in `baco_integrations.tiny.words`. Where a dict has
splits, the wordings under "train" alone stand in the corpora.
"""

FRAMES: dict[str, tuple[str, ...]] = {
    "train": (
        "Give me {a}.", "Please give me {a}.", "Can you give me {a}?", "Suggest {a}.",
        "Could you suggest {a}?", "Please suggest {a}.", "I need {a}.", "I am looking for {a}.",
        "I would like {a}.", "Do you have {a} for me?", "Share {a} with me.", "Think of {a}.",
        "Could you think of {a}?", "Let me hear {a}.", "Tell me {a}.", "Can you come up with {a}?",
        "Come up with {a}, please.", "Help me with {a}.", "What would be {a}?", "I want {a}.",
        "Offer me {a}.", "Any idea for {a}?", "We are in need of {a}.", "Can I get {a}, please?",
    ),
    "validation": ("May I ask for {a}?", "Would you share {a}?", "Please come up with {a}."),
    "eval": (
        "Could you give me {a}, please?", "I could use {a}.", "Please think of {a} for me.",
        "Would you suggest {a}?", "I am hoping for {a}.", "Please offer me {a}.",
        "Can we hear {a}?",
    ),
}  # fmt: skip
LEADS: dict[str, tuple[str, ...]] = {
    "train": (
        "Hi!", "Hello.", "I am bored.", "It is raining today.", "My sister asked me.",
        "We talked about this at lunch.", "Quick question.", "I have no ideas left.",
    ),
    "validation": ("Hello again.",),
    "eval": ("Good morning.", "I have a quick question.", "My friends have no ideas."),
}  # fmt: skip
AIMS = ("for my sister", "for a friend", "this week", "for our club", "today", "for my neighbor")
ANOTHER: dict[str, tuple[str, ...]] = {
    "train": (
        "Another one, please.", "One more, please.", "Can I have another one?", "And another one?",
        "Something else, please.", "Give me a different one.", "Do you have one more?",
        "Next one, please.", "Any other?", "What else do you have?", "Tell me another one.",
        "Please give me one more.", "I want another one.",
    ),
    "validation": ("Can I have one more?",),
    "eval": ("Please give me another one.", "And one more, please.", "Do you have another one?"),
}  # fmt: skip
WHY: dict[str, tuple[str, ...]] = {
    "train": (
        "Why that one?", "Why?", "Why did you pick it?", "Tell me why.", "But why that one?",
        "Why is that good?", "Why did you choose it?", "Why this?", "Can you say why?", "And why?",
        "Please say why.", "Could you tell me why?", "So why did you pick it?", "Why that?",
        "Why would you say that?", "But why did you choose that?", "I want to know why.",
        "Please explain why.", "Do you know why?", "Why so?",
    ),
    "validation": ("Why did you pick that one?",),
    "eval": ("But why?", "Please tell me why.", "Why did you pick that?"),
}  # fmt: skip

ASIDES = (
    "just my two cents", "not sure though", "as my uncle says", "no offense", "from memory",
    "at least here", "or so they say", "long story", "do not quote me", "for what it is worth",
)  # fmt: skip
LAUGHS = ("lol", "haha", "imo", "btw", "right")
CHATTER = (
    "Anyway, who knows.", "Thanks for reading.", "My phone is almost dead.", "Where was I.",
    "That reminds me of last year.", "Sorry for the typos.", "Somebody else may know more.",
    "The bus is late again.", "By the way, I moved last week.",
)  # fmt: skip
DODGES = (
    "Why do you ask?", "No idea, sorry.", "Same question here.", "Please use the search first.",
    "Somebody answered this before.", "Depends.",
)  # fmt: skip
FOOTERS = (
    "Edit: fixed a typo", "Posted by a guest at noon", "Reply to this post", "Share this page",
    "Read more below", "Comments are closed", "See also: old posts", "Thanks in advance",
)  # fmt: skip

# What JSON answers and tools are called. Keys tell the role of a value; an unknown one names a
# content.

CONTENT_KEYS: dict[str, tuple[str, ...]] = {
    "train": (
        "idea", "name", "title", "choice", "answer", "suggestion", "pick", "option", "item",
        "thing", "content", "value", "result", "place", "city", "dish", "gift", "hobby", "plant",
        "color", "drink", "plan", "animal", "favorite", "winner", "main", "best", "alternative",
        "second", "topic", "subject", "object", "label", "headline", "text", "reply", "output",
        "hero", "product", "present", "pet_name", "next_idea", "new_name", "first_choice",
    ),
    "validation": ("response", "candidate"),
    "eval": ("proposal", "recommendation", "my_idea", "selected", "entry", "tip"),
}  # fmt: skip
REASON_KEYS = (
    "reason", "why", "because", "explanation", "motivation", "rationale", "justification",
    "argument", "thought", "reasoning",
)  # fmt: skip
DETAIL_KEYS = (
    "detail", "note", "comment", "description", "remark", "about", "summary", "details", "notes",
    "pitch", "review", "praise",
)  # fmt: skip
LIST_KEYS: dict[str, tuple[str, ...]] = {
    "train": (
        "ideas", "names", "titles", "choices", "answers", "suggestions", "picks", "options",
        "items", "things", "values", "results", "places", "list", "others", "alternatives",
        "gifts", "favorites", "top_three", "entries",
    ),
    "validation": ("candidates",),
    "eval": ("proposals", "recommendations", "tips"),
}  # fmt: skip
FLAG_KEYS = ("good", "sure", "cheap", "is_new", "easy", "popular", "ok", "for_kids")
COUNT_KEYS = ("count", "score", "rating", "rank", "level", "stars", "confidence", "hours")
COUNTS = ("3", "2", "4", "5", "1", "6", "7", "8", "9", "10")
ENUM_KEYS = ("mood", "size", "price", "effort", "category", "style", "difficulty", "tone")
ENUMS = (
    "low", "medium", "high", "small", "large", "cheap", "fair", "easy", "hard", "happy", "calm",
    "formal", "casual", "indoor", "outdoor", "classic", "modern", "none", "some",
)  # fmt: skip
OBJECT_KEYS = ("data", "info", "extra", "meta", "more", "other", "inner", "details")
OBJECT_LIST_KEYS = ("ideas", "items", "options", "results", "entries", "rows", "records")
CLASSES = ("Idea", "Item", "Answer", "Option", "Info", "Entry", "Thing", "Record", "Detail")
FIELD_NOTES = (
    "The idea itself.", "What you suggest.", "One short clause.", "The name of it.",
    "Why it is good.", "A few words.", "Keep it short.", "What to say.",
)  # fmt: skip

TOOL_VERBS: dict[str, tuple[str, ...]] = {
    "train": (
        "get", "find", "search", "suggest", "fetch", "look_up", "list", "collect", "give", "query",
        "ask_for", "think_of", "make", "generate", "load", "retrieve",
    ),
    "validation": ("bring",),
    "eval": ("gather", "browse", "propose"),
}  # fmt: skip
TOOL_NOUNS: dict[str, tuple[str, ...]] = {
    "train": (
        "ideas", "suggestions", "options", "things", "answers", "choices", "proposals", "tips",
        "catalog", "notes", "documents", "knowledge", "inspiration", "examples",
    ),
    "validation": ("hints",),
    "eval": ("thoughts", "candidates"),
}  # fmt: skip
TOOL_NAMES: dict[str, tuple[str, ...]] = {
    "train": (
        "brainstorm", "ideas", "suggest", "search", "look_up", "lookup", "retriever", "find",
        "knowledge_base", "inspire", "idea_tool", "query_engine", "search_web", "creative",
        "assistant_search", "ask", "recommend", "brainstorm_ideas",
    ),
    "validation": ("muse",),
    "eval": ("idea_finder", "recommender", "search_notes", "idea_bank"),
}  # fmt: skip
TOOL_NOTES: dict[str, tuple[str, ...]] = {
    "train": (
        "Gives ideas.", "Ideas for a question.", "Find several ideas for an open question.",
        "Suggest things that fit a request.", "Search for answers.", "Search the catalog.",
        "Look up what people like.", "Brainstorm about a topic.", "Return a list of suggestions.",
        "Useful for questions about what to choose.", "Finds options to choose from.",
        "Collects different ideas about a topic.", "Looks things up in the notes.",
        "Searches the documents for an answer.", "Use this for any request for ideas.",
        "A source of varied suggestions.", "Returns several different ideas, one per line.",
        "Think of many things at once.", "Ask for inspiration.", "Get suggestions from others.",
    ),
    "validation": ("Brings hints for a question.",),
    "eval": (
        "Finds many different ideas for a request.", "Search the notes for suggestions.",
        "Gives several options to choose from.", "Use it to look up ideas.",
        "Different suggestions for an open question.",
    ),
}  # fmt: skip
UNFIT_VERBS = ("get", "check", "compute", "convert", "send", "set", "run", "read", "book", "show")
UNFIT_NOUNS: dict[str, tuple[str, ...]] = {
    "train": (
        "weather", "forecast", "sum", "currency", "mail", "alarm", "timer", "time", "date",
        "stock_price", "distance", "route", "exchange_rate", "temperature", "invoice", "code",
        "sql", "file", "taxi", "units",
    ),
    "validation": ("clock",),
    "eval": ("humidity", "email", "calendar", "price"),
}  # fmt: skip
UNFIT_NAMES: dict[str, tuple[str, ...]] = {
    "train": (
        "calculator", "weather", "translate", "add", "multiply", "python", "play_music", "math",
        "current_time", "send_message", "thermostat", "delete_file", "divide", "now",
    ),
    "validation": ("abacus",),
    "eval": ("calculate", "weather_report", "subtract"),
}  # fmt: skip
UNFIT_NOTES: dict[str, tuple[str, ...]] = {
    "train": (
        "The weather of a town.", "Tells the weather.", "Calculates a sum.", "Adds two numbers.",
        "Multiply two numbers.", "Converts an amount of money.", "Sends a mail to somebody.",
        "Sets an alarm.", "The time right now.", "Translates a text.", "Turns the heating on.",
        "Runs Python code.", "The price of a stock.", "How far it is from here.",
        "Evaluate a mathematical expression.", "Reads a file.", "Plays a song.",
        "Returns the date of today.", "Current temperature and wind.", "Deletes a file.",
    ),
    "validation": ("Tells the hour.",),
    "eval": (
        "Calculate with numbers.", "The weather for today.", "Sends an email.",
        "The price of a ticket.",
    ),
}  # fmt: skip
PARAMETERS: dict[str, tuple[str, ...]] = {
    "train": (
        "question", "topic", "query", "request", "text", "input", "prompt", "q", "subject", "about",
        "keywords", "message", "what", "user_input", "search_query", "term",
    ),
    "validation": ("wish",),
    "eval": ("problem", "user_request", "demand"),
}  # fmt: skip
UNFIT_PARAMETERS = (
    "city", "a", "b", "amount", "to", "expression", "path", "zone", "degrees", "x", "symbol",
    "text", "query", "message", "input",
)  # fmt: skip
SYLLABLES = (
    "ba", "do", "ki", "lu", "me", "no", "pa", "ri", "su", "ta", "ve", "zo", "fin", "gar", "hol",
    "jun", "mar", "pel", "sen", "tor", "wick", "x", "qu", "yl",
)  # fmt: skip
MORE_OPENERS = (
    "You could also take", "Another option is", "There is also", "Or you could choose",
    "Just as good is",
)  # fmt: skip
